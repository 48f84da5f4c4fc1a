"""Results in one JSON file: whole, of the right kind, or one sentence about what is wrong."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from headscope import storage
from headscope.errors import HeadscopeError

_Kind = TypeVar("_Kind", bound="Kept")
_Resumed = TypeVar("_Resumed", bound="Resumed")


class Kept(BaseModel):
    """Something measured that is saved whole and read again."""

    model_config = ConfigDict(extra="forbid")

    again: ClassVar[str]  # what to do to make it anew

    def save(self, path: str | Path) -> Path:
        """Save it in one step."""
        path = Path(path)
        storage.write(path, (self.model_dump_json(indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls: type[_Kind], path: str | Path) -> _Kind:
        """Read a saved result.

        Raises:
            HeadscopeError: the file is missing, damaged, of another kind or another headscope.
        """
        try:
            return cls.model_validate_json(storage.read(Path(path)))
        except ValidationError as error:
            problem = error.errors()[0]
            if problem["loc"] == ("schema_version",):
                age = "a newer" if problem["type"] == "less_than_equal" else "an older"
                do = "update headscope" if age == "a newer" else f"delete it and {cls.again}"
                raise HeadscopeError(f"{path} was written by {age} headscope; {do}.") from error
            told = problem["msg"].removeprefix("Value error, ").rstrip(".")
            where = ".".join(map(str, problem["loc"]))
            found = f"{where}: {told}" if where else told
            raise HeadscopeError(
                f"{path} is damaged or no {cls.__name__.lower()} ({found}); correct it, or "
                f"delete it and {cls.again}."
            ) from error


class Resumed(Kept, ABC):
    """A result that is saved while it is measured, and that goes on where it was cut off."""

    what: ClassVar[str]  # what a file of other contents holds: "another validation"

    @abstractmethod
    def identity(self) -> Any:
        """What two results have to agree in for one to go on as the other."""

    def continued(self: _Resumed, path: Path | None) -> _Resumed:
        """What a file holds of this measurement; itself where there is no file yet.

        Raises:
            HeadscopeError: the file cannot be read, or holds something else.
        """
        if path is None or not path.exists():
            return self
        old = type(self).load(path)
        if old.identity() != self.identity():
            raise HeadscopeError(
                f"{path} holds {self.what}; choose another file, or delete this one."
            )
        return old
