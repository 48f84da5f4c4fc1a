from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.base import Pattern
from headscope.patterns.limits import at_least


@dataclass(frozen=True)
class Dilated(Pattern):
    """The first tokens, and `neighbors` ones at steps of `dilation` back from the query.

    key < sink  or  query - key = m * dilation for one m from 0 to neighbors - 1, in tokens.

    m = 0 is the query's own key. A dilation of 1 is a window.

    Source: dilated neighborhood attention (Hassani & Shi 2022, arXiv 2209.15001) along one axis,
    all neighbors before the query; dilated sliding windows in Longformer (Beltagy et al. 2020,
    arXiv 2004.05150), section 3.1. The sink is headscope's.

    Attributes:
        sink: tokens.
        neighbors: keys, the query's own among them.
        dilation: tokens from one to the next.
    """

    paper = "Hassani & Shi 2022, arXiv 2209.15001"

    sink: int = 4
    neighbors: int = 64
    dilation: int = 2

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "neighbors": 1, "dilation": 1})

    @property
    def _span(self) -> int:
        return (self.neighbors - 1) * self.dilation + 1

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        distance = query - key
        near = (distance < self._span) & (distance % self.dilation == 0)
        return (key < self.sink) | near

    def held(self) -> tuple[int, int] | None:
        return self.sink, self._span

    def repeats(self) -> tuple[int, int]:
        return 1, self.sink
