"""What a rule means for one attention: the keys that each row sees, as kernels take them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.patterns.base import Pattern


@dataclass(frozen=True, eq=False)
class Selection:
    """The union of ranges, blocks and columns; a row sees what it holds and causality allows.

    Where all three are None, no key is seen.

    Attributes:
        ranges: a pattern, the same for all heads.
        blocks: which blocks of keys the queries of a block see, by positions: entry [.., i, j] is
            about queries from (first_block + i) * block on and keys from j * block on. Queries
            before the first of these blocks, or behind the last, see none through it.
        block: tokens of a block.
        first_block: the block of queries that `blocks` begins with.
        columns: keys that every row sees, by their index in the attention.
        most: how many blocks a block of queries sees at most, where that is known without looking.
    """

    ranges: "Pattern | None" = None
    blocks: Bool[Tensor, "batch head query_block key_block"] | None = None
    block: int = 64
    first_block: int = 0
    columns: Bool[Tensor, "batch head key"] | None = None
    most: int | None = None

    def mask(
        self, attention: "Attention", queries: Int[Tensor, "..."], keys: Int[Tensor, "..."]
    ) -> Bool[Tensor, " #batch #head ..."]:
        """Whether each query sees each key, over two index tensors that broadcast to the last axes.

        Causality and what else the attention hides are added by the user.
        """
        query = attention.query_positions[:, None][..., queries]
        key = attention.keys_by_head()[..., keys]
        shape = torch.broadcast_shapes(query.shape, key.shape)
        seen = torch.zeros((), dtype=torch.bool, device=query.device).expand(shape)
        if self.ranges is not None:
            seen = seen | self.ranges.mask(query, key)
        if self.blocks is not None and self.blocks.numel():
            seen = seen | self._in_blocks(query, key)
        if self.columns is not None:
            seen = seen | self.columns[..., keys]
        return seen

    def _in_blocks(self, query: Tensor, key: Tensor) -> Tensor:
        assert self.blocks is not None
        row = query.div(self.block, rounding_mode="floor") - self.first_block
        column = key.div(self.block, rounding_mode="floor")
        inside = (row >= 0) & (row < self.blocks.shape[2])
        inside = inside & (column >= 0) & (column < self.blocks.shape[3])
        batch = torch.arange(len(self.blocks), device=key.device)
        head = torch.arange(self.blocks.shape[1], device=key.device)
        trailing = (1,) * (max(query.ndim, key.ndim) - 2)
        chosen = self.blocks[
            batch.reshape(-1, 1, *trailing),
            head.reshape(1, -1, *trailing),
            row.clamp(0, self.blocks.shape[2] - 1),
            column.clamp(0, self.blocks.shape[3] - 1),
        ]
        return chosen & inside

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of positions that hold every key which a query from `first` to `last` may see."""
        if self.columns is not None:  # known by index, not by position
            return [(0, last + 1)]
        found = [] if self.ranges is None else self.ranges.key_ranges(first, last)
        if self.blocks is None:
            return found
        low, high = (
            max(at // self.block - self.first_block, 0) for at in (first, last + self.block)
        )
        some = self.blocks[:, :, low:high].flatten(0, 2).any(0).nonzero()[:, 0].tolist()
        blocks = ((j * self.block, min((j + 1) * self.block, last + 1)) for j in some)
        return _joined([*found, *(part for part in blocks if part[0] < part[1])])

    def heads(self, index: Int[Tensor, " head"]) -> "Selection":
        """The selection of some heads alone."""
        return self._cut(1, index)

    def batch_row(self, row: int) -> "Selection":
        """The selection of one sequence alone."""
        return self._cut(0, torch.tensor([row]))

    def _cut(self, axis: int, index: Tensor) -> "Selection":
        def some(x: Tensor | None) -> Tensor | None:
            if x is None or x.shape[axis] == 1:
                return x
            return x.index_select(axis, index.to(x.device))

        return replace(self, blocks=some(self.blocks), columns=some(self.columns))


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open ranges, ascending and disjoint, that hold the same numbers."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
