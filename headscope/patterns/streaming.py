from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern


@dataclass(frozen=True)
class Streaming(Pattern):
    """The first `sink` tokens and the last `window` ones, the query's own among them.

    key < sink  or  query - key < window, with sink and window in tokens.

    Source: StreamingLLM (Xiao et al. 2023, arXiv 2309.17453), section 3.2; DuoAttention
    (Xiao et al. 2024, arXiv 2410.10819) calls the same shape a streaming head.
    """

    sink: int = 4
    window: int = 64

    def __post_init__(self) -> None:
        if self.sink < 0 or self.window < 1:
            raise HeadscopeError(
                "A streaming pattern needs sink >= 0 and window >= 1, not "
                f"sink={self.sink}, window={self.window}."
            )

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        return (key < self.sink) | (query - key < self.window)

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        sink, start = min(self.sink, last + 1), max(first - self.window + 1, 0)
        if start <= sink:
            return [(0, last + 1)]
        return [(0, sink), (start, last + 1)] if sink else [(start, last + 1)]
