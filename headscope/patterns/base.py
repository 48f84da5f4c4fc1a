"""Patterns: statements about who may see whom, made from positions alone."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Int
from torch import Tensor

from headscope.registry import Registered


@dataclass(frozen=True)
class Pattern(Registered, ABC):
    """Which keys a query may see, from positions alone; causality is always added by its user.

    The same object is a region for a probe (how much mass falls inside), a restriction for an
    intervention, an entry in a profile and an outline in a figure. Subclasses are frozen
    dataclasses of a few integers; being in the folder registers them.
    """

    registry: ClassVar[dict[str, "type[Pattern]"]] = {}

    @abstractmethod
    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether the query at each position may see the key at each position.

        Args:
            query: positions of queries (not slots: padding and caches do not shift them).
            key: positions of keys, broadcast against `query`; never later than the query.
        """

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Half-open, ascending, disjoint ranges of positions that hold every key which a query
        between positions `first` and `last` (both included) may see.

        They may hold more than the mask allows: they exist so that nothing outside is computed.
        """
        return [(0, last + 1)]

    def to_dict(self) -> dict[str, int | str]:
        """The pattern as plain JSON values: its name and its integers."""
        return {"pattern": self.name, **dataclasses.asdict(self)}
