"""What patterns and selectors share: how a rule is written, in JSON and in words."""

import dataclasses
from typing import Any, ClassVar


class Written:
    """A frozen dataclass of a few numbers, known by its name."""

    name: ClassVar[str]
    paper: ClassVar[str]  # where the rule comes from; "after" where it is only like it

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the name and the numbers."""
        mine: Any = self
        return {"rule": self.name, **dataclasses.asdict(mine)}

    def __str__(self) -> str:
        """The name and the numbers, those left out that are zero as they are by default."""
        fields: Any = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        values = {field.name: getattr(self, field.name) for field in fields}
        idle = {f.name for f in fields if f.default == 0 and values[f.name] == 0}
        told = [f"{name}={value}" for name, value in values.items() if name not in idle]
        return f"{self.name}({', '.join(told)})" if told else self.name
