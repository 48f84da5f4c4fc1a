from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern
from headscope.patterns.limits import at_least


@dataclass(frozen=True)
class Sharded(Pattern):
    """The first tokens, the last ones, and one of `stride` shards of the text.

    key < sink  or  query - key < window  or  floor(key / block) mod stride = offset.

    The text is cut into blocks, which are dealt out in turn: shards of all offsets together are the
    whole text, and so is what heads with all of them see. Which keys belong to a shard does not
    depend on the query.

    Source: S2-Attention (Lin et al. 2024, arXiv 2407.17678), where heads of a layer hold different
    shards beside a local window; there the window is in blocks, here in tokens, and the sink is
    headscope's.

    Attributes:
        sink: tokens.
        window: tokens, the query's own among them.
        block: tokens of a block.
        stride: shards, which is how many blocks lie between one of a shard and its next, less one.
        offset: the shard, 0 to stride - 1.
    """

    paper = "Lin et al. 2024, arXiv 2407.17678"

    sink: int = 4
    window: int = 64
    block: int = 64
    stride: int = 8
    offset: int = 0

    def __post_init__(self) -> None:
        least = {"sink": 0, "window": 1, "block": 1, "stride": 1, "offset": 0}
        at_least(self.name, vars(self), least)
        if self.offset >= self.stride:
            raise HeadscopeError(
                f"The rule 'sharded' has {self.stride} shards, 0 to {self.stride - 1}; there is no "
                f"offset={self.offset}."
            )

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        shard = key.div(self.block, rounding_mode="floor") % self.stride
        return (key < self.sink) | (query - key < self.window) | (shard == self.offset)

    def repeats(self) -> tuple[int, int]:
        return self.block * self.stride, self.sink
