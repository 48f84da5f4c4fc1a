from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.base import Pattern
from headscope.patterns.limits import at_least


@dataclass(frozen=True)
class Strided(Pattern):
    """The first tokens, the last ones, and every `stride`-th one before them.

    key < sink  or  query - key < window  or  (query - key) mod stride = 0, in tokens.

    Distances count, so that the grid moves with the query and the query's own key is on it.

    Source: the strided pattern of the Sparse Transformer (Child et al. 2019, arXiv 1904.10509),
    section 4, whose two parts, the last `stride` tokens and the grid, may be two heads there and
    are one here. The sink is headscope's.

    Attributes:
        sink: tokens.
        window: tokens, the query's own among them.
        stride: tokens.
    """

    paper = "Child et al. 2019, arXiv 1904.10509"

    sink: int = 4
    window: int = 64
    stride: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "window": 1, "stride": 1})

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        distance = query - key
        return (key < self.sink) | (distance < self.window) | (distance % self.stride == 0)

    def repeats(self) -> tuple[int, int]:
        return 1, self.sink
