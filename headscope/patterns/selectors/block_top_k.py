from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.patterns.selection import Selection
from headscope.patterns.selectors.budget import _BlockBudget
from headscope.patterns.selectors.choosing import best
from headscope.patterns.selectors.grid import Grid, columns_of

if TYPE_CHECKING:
    from headscope.attention import Attention

_MOST = 8192  # columns that one program of the kernel holds


@dataclass(frozen=True)
class BlockTopK(_BlockBudget):
    """For each block of queries, the blocks of keys whose mean agrees most with its own mean.

    score(i, j) = mean of q in block i · mean of k in block j, rotated as they are. A block of
    queries sees its own block, those of the sink, and the highest scores of the blocks between, so
    that there are `blocks` of them, or all.

    A single query is a block of its own, which makes decode steps choose as Quest (Tang et al.
    2024, arXiv 2406.10774) does; pages there are scored by the bounds of their keys, here by the
    mean.

    Source: the block-sparse pattern of MInference (Jiang et al. 2024, arXiv 2407.02490), and of
    MoBA (Lu et al. 2025, arXiv 2502.13189). MInference's code always takes 100 blocks of 64 and
    none of them for sure; blocks here lie on a grid of positions, so that chunks of a prompt are
    cut alike.

    Attributes:
        block: tokens of a block of queries and of one of keys.
        blocks: of keys, for each block of queries, its own and those of the sink included.
        sink: tokens; the blocks that they reach into are always seen.
    """

    paper = "Jiang et al. 2024, arXiv 2407.02490"

    def select(self, attention: "Attention") -> Selection:
        grid = Grid.of(attention, self.block)
        if grid.kernels and grid.columns <= _MOST:
            chosen = self._by_kernels(grid)
        else:
            always = grid.always(self.sink)
            chosen = best(grid.logits().masked_fill(always, -torch.inf), self.free) | always
        return Selection(blocks=chosen, block=self.block, first_block=grid.first, most=self.blocks)

    def _by_kernels(self, grid: Grid) -> Bool[Tensor, "batch head row column"]:
        from headscope.kernels.best import best_before

        scores = grid.logits_of(grid.mean_queries(grid.attention.q))
        sink, lowest = columns_of(self.sink, self.block), grid.slots.first_key // self.block
        return best_before(scores, self.free, grid.first, sink, lowest)
