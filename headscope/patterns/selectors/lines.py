"""What the last rows of a text tell of its columns and diagonals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.blocks import wide_dtype
from headscope.patterns.selectors.fast import by_kernels
from headscope.patterns.selectors.grid import Grid

if TYPE_CHECKING:
    from headscope.attention import Attention

_MOST = 128 * 128  # numbers in the last queries of a head that kernels take


@dataclass(frozen=True, eq=False)
class Lines:
    """Attention of the last rows of every sequence, edits included, summed along two directions.

    Attributes:
        late: which queries these rows are.
        columns: what each key receives.
        diagonals: what is seen at each distance, in tokens.
    """

    late: Bool[Tensor, "batch query"]
    columns: Float[Tensor, "batch head key"]
    diagonals: Float[Tensor, "batch head distance"]

    @classmethod
    def of(cls, attention: "Attention", last: int) -> "Lines":
        """Of the last `last` rows of each sequence, padding left out: `last` rows of memory."""
        if last <= min(128, _MOST // attention.q.shape[3]) and by_kernels(attention):
            return cls._by_kernels(attention, min(last, attention.n_queries))
        query, key = attention.query_positions, attention.keys_by_head()
        size, dtype = (len(query), attention.n_heads), wide_dtype(attention.q)
        columns = attention.q.new_zeros(*size, attention.n_keys, dtype=dtype)
        diagonals = columns.new_zeros(*size, max(int(query.max()), 0) + 1)
        real = query >= 0
        late = real & (real.flip(1).cumsum(1).flip(1) <= last)
        for b in range(len(query)):
            for tile in attention.batch_row(b).tiles(late[b].nonzero()[:, 0]):
                p = tile.probabilities[0]
                distance = query[b, tile.queries, None] - key[b, :, None, tile.keys]
                distance = distance.clamp(min=0, max=diagonals.shape[2] - 1).expand_as(p)
                columns[b, :, tile.keys] += p.sum(1)
                diagonals[b].scatter_add_(1, distance.flatten(1), p.flatten(1))
        return cls(late, columns, diagonals)

    @classmethod
    def _by_kernels(cls, attention: "Attention", last: int) -> "Lines":
        from headscope.kernels.late import late_lines

        slots, n = attention.slots, attention.n_queries
        assert slots is not None  # kernels take no attention without
        late = torch.arange(n, device=attention.q.device) >= n - last
        columns, diagonals = late_lines(
            attention.q[:, :, n - last :],
            attention.k,
            attention.scale,
            attention.softcap,
            attention.sink_logits,
        )
        # No key is further away than the first.
        diagonals = pad(diagonals, (0, max(slots.first_key, 0)))
        return cls(late.expand(len(attention.q), -1), columns, diagonals)

    def ends(self, attention: "Attention") -> Int[Tensor, "batch 2"]:
        """The positions of the first and the last of these rows; -1 where a sequence has none."""
        query = attention.query_positions
        last = torch.where(self.late, query, -1).amax(1)
        return torch.stack((torch.where(self.late, query, last[:, None]).amin(1), last), 1)

    def on_columns(self, grid: Grid) -> Float[Tensor, "batch head column"]:
        """What each block of keys receives, as a share of what all of them do."""
        slot = grid.column_of_keys()
        slot = slot.repeat_interleave(self.columns.shape[1] // slot.shape[1], dim=1)
        sums = self.columns.new_zeros(*self.columns.shape[:2], grid.columns + 1)
        sums = sums.scatter_add(2, slot, self.columns)[..., : grid.columns]
        whole = sums.sum(-1, keepdim=True)
        return sums / torch.where(whole > 0, whole, 1)

    def candidates(self, grid: Grid) -> Bool[Tensor, "batch head column"]:
        """Blocks of keys that some of these rows can see, as far as the layer itself lets them."""
        first, last = self.ends(grid.attention).unbind(-1)
        seen = (grid.column <= (last // grid.block)[:, None]) & grid.within_reach(first)
        return grid.filled() & (seen & (last >= 0)[:, None])[:, None]


def blocks_crossed(
    diagonals: Bool[Tensor, "batch head distance"], grid: Grid
) -> Bool[Tensor, "batch head row column"]:
    """The blocks of a grid that chosen diagonals cross."""
    block, size = grid.block, grid.columns
    if grid.kernels:
        return _by_kernels(diagonals, grid)
    distance = torch.arange(diagonals.shape[2], device=diagonals.device)
    back = diagonals.new_zeros(*diagonals.shape[:2], size + 1, dtype=torch.long)
    # A diagonal between two multiples of a block crosses a block on either side of it.
    for blocks in (distance // block, -(-distance // block)):
        slot = blocks.clamp(max=size).expand_as(diagonals)
        back = back.scatter_add(2, slot, diagonals.long())
    apart = grid.own - grid.column
    return (back > 0)[:, :, apart.clamp(min=0)] & (apart >= 0)


def _by_kernels(
    diagonals: Bool[Tensor, "batch head distance"], grid: Grid
) -> Bool[Tensor, "batch head row column"]:
    from headscope.kernels.crossing import at_distances

    block, size = grid.block, grid.columns
    whole = pad(diagonals, (block - 1, (size + 1) * block - block + 1 - diagonals.shape[2]))
    up = whole.unflatten(2, (size + 1, block)).any(-1)[..., :size]
    down = whole[..., block - 1 : block - 1 + size * block].unflatten(2, (size, block)).any(-1)
    return at_distances(up | down, grid.rows, grid.first)
