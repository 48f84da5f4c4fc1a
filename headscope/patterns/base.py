"""Patterns: statements about who may see whom, made from positions alone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.selection import Selection
from headscope.patterns.written import Written
from headscope.registry import Registered

if TYPE_CHECKING:
    from headscope.attention import Attention

_PAIRS = 2**22  # pairs of one mask from which ranges are derived
_ROWS = 4096  # more rows than these are counted by evenly spaced ones


@dataclass(frozen=True)
class Pattern(Written, Registered, ABC):
    """Which keys a query may see, from positions alone; causality is always added by its user.

    The same object is a region for a probe (how much mass falls inside), a restriction for an
    intervention, an entry in a profile and its exports, and an outline in a figure. Subclasses are
    frozen dataclasses of a few numbers with `mask` written; being in the folder registers them.
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

        Derived from `mask`. Where a pattern overrides it, ranges may hold more than the mask
        allows: they exist so that nothing outside is computed.
        """
        # Single rows are steps of decoding, which come once each.
        derive = _derived.__wrapped__ if first == last else _derived
        return list(derive(self, first, last))

    def at(self, n: int) -> "Pattern":
        """The pattern for a text of n tokens: another one where a window grows with length."""
        return self

    def held(self) -> tuple[int, int] | None:
        """(sink, window): the first and last positions that any later query may still see.

        Whatever a query at position q sees is below `sink` or above q - window, so that a cache may
        drop for good what is neither. None where keys between them may be seen again however far
        away they are, or where the window grows. The window counts the query's own key; within it
        a pattern may still leave out keys, as `Dilated` does.
        """
        return None

    def repeats(self) -> tuple[int, int] | None:
        """(step, after), in tokens: of keys from position `after` on, whether a query sees a key
        is the same where both stand `step` later. None where there is no such step.

        It lets kernels find out what a long pattern looks like from a short piece of it.
        """
        return None

    def density(self, n: int) -> float:
        """Share of all causal pairs of n tokens that the pattern keeps, in [0, 1].

        Of more than 4 096 rows, as many evenly spaced ones are counted.
        """
        return _density(self, n)

    def resolve(self, attention: "Attention") -> Selection:
        """What the pattern means for one attention: itself."""
        return Selection(ranges=self)


@lru_cache(maxsize=512)
def _derived(pattern: Pattern, first: int, last: int) -> tuple[tuple[int, int], ...]:
    """The runs of keys that some row of a block sees, exactly."""
    query = torch.arange(first, last + 1)[:, None]
    step = max(1, _PAIRS // len(query))
    seen = []
    for start in range(0, last + 1, step):
        key = torch.arange(start, min(start + step, last + 1))[None]
        seen.append((pattern.mask(query, key) & (key <= query)).any(0))
    edges = torch.cat(seen).int().diff(prepend=torch.zeros(1).int(), append=torch.zeros(1).int())
    starts, stops = ((edges == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return tuple(zip(starts, stops, strict=True))


@lru_cache(maxsize=4096)
def _density(pattern: Pattern, n: int) -> float:
    rows = torch.arange(n)
    if n > _ROWS:
        rows = (torch.arange(_ROWS) * 2 + 1) * n // (2 * _ROWS)
    kept = 0
    for some in rows.split(max(1, _PAIRS // max(n, 1))):
        query, key = some[:, None], torch.arange(n)[None]
        kept += int((pattern.mask(query, key) & (key <= query)).sum())
    return kept / int((rows + 1).sum()) if n else 1.0
