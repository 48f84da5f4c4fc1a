from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.base import Pattern
from headscope.patterns.limits import at_least


@dataclass(frozen=True)
class PowerOfTwo(Pattern):
    """The first tokens, the last ones, and the blocks 1, 2, 4, 8, ... blocks back.

    key < sink  or  query - key < window  or  floor(query / block) - floor(key / block) = 2^m for
    one m >= 0.

    The query's own block, 0 blocks back, is seen as far as the window goes. In d layers what is
    seen of what is seen reaches 2^d blocks back without a gap.

    Source: PowerAttention (Chen et al. 2025, arXiv 2503.03588). Here blocks lie on a grid from
    position 0 on, and window and sink are in tokens.

    Attributes:
        sink: tokens.
        window: tokens, the query's own among them.
        block: tokens of a block.
    """

    paper = "Chen et al. 2025, arXiv 2503.03588"

    sink: int = 4
    window: int = 64
    block: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "window": 1, "block": 1})

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        of_query, of_key = (x.div(self.block, rounding_mode="floor") for x in (query, key))
        back = of_query - of_key
        power = (back > 0) & (back & (back - 1) == 0)
        return (key < self.sink) | (query - key < self.window) | power

    def repeats(self) -> tuple[int, int]:
        return self.block, self.sink
