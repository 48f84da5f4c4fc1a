import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern


@dataclass(frozen=True)
class Streaming(Pattern):
    """The first `sink` tokens and the last ones, the query's own among them.

    key < sink  or  query - key < window + floor(growth * (query + 1)), in tokens.

    The window may grow with the text that is read so far, as the spans alpha + beta N of MoA do;
    MoA gives all rows of a text of N tokens the window of the last one, which is `at(N)`.

    Source: StreamingLLM (Xiao et al. 2023, arXiv 2309.17453), section 3.2, the A-shape of
    MInference (Jiang et al. 2024, arXiv 2407.02490); DuoAttention (Xiao et al. 2024, arXiv
    2410.10819) calls the same shape a streaming head. The growing window: MoA (Fu et al. 2024,
    arXiv 2406.14909), section 3.

    Attributes:
        sink: tokens.
        window: tokens; it may be 0 or less only where it grows, and counts as 1 at least.
        growth: tokens of window for each token of text, 0 to 1.
    """

    paper = "Xiao et al. 2023, arXiv 2309.17453"

    sink: int = 4
    window: int = 64
    growth: float = 0.0

    def __post_init__(self) -> None:
        grows = self.growth if isinstance(self.growth, int | float) else -1.0
        whole = all(type(value) is int for value in (self.sink, self.window))
        if (
            not whole
            or self.sink < 0
            or not 0 <= grows <= 1
            or (self.window < 1 and not self.growth)
        ):
            raise HeadscopeError(
                "A streaming pattern needs whole numbers sink >= 0 and window >= 1, the latter "
                "unless it grows, and growth from 0 to 1, not "
                f"sink={self.sink!r}, window={self.window!r}, growth={self.growth!r}."
            )

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        window: Tensor | int = self.window
        if self.growth:
            grown = ((query + 1).double() * self.growth).floor().long()
            window = (grown + self.window).clamp(min=1)
        return (key < self.sink) | (query - key < window)

    def _window_of(self, n: int) -> int:
        return max(1, self.window + math.floor(self.growth * n)) if self.growth else self.window

    def at(self, n: int) -> "Streaming":
        return Streaming(self.sink, self._window_of(n)) if self.growth else self

    def held(self) -> tuple[int, int] | None:
        return None if self.growth else (self.sink, self.window)

    def repeats(self) -> tuple[int, int] | None:
        return None if self.growth else (1, self.sink)

    def density(self, n: int) -> float:
        """Share of all causal pairs of n tokens that the pattern keeps, in [0, 1]; exact."""
        if n < 1:
            return 1.0
        seen = torch.arange(1, n + 1)
        window: Tensor | int = self.window
        if self.growth:
            window = (seen.double() * self.growth).floor().long() + self.window
        beyond = (seen - torch.as_tensor(window).clamp(min=1)).clamp(min=0)
        kept = seen - (beyond - self.sink).clamp(min=0)
        return int(kept.sum()) / int(seen.sum())

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        # A window grows by one token a row at most, so that the first row sees furthest back.
        sink, start = min(self.sink, last + 1), max(first - self._window_of(first + 1) + 1, 0)
        if start <= sink:
            return [(0, last + 1)]
        return [(0, sink), (start, last + 1)] if sink else [(start, last + 1)]
