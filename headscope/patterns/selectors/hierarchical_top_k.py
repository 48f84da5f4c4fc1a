from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.blocks import budget, wide
from headscope.patterns.selection import Selection
from headscope.patterns.selectors.budget import _BlockBudget
from headscope.patterns.selectors.grid import Grid, columns_of

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True)
class HierarchicalTopK(_BlockBudget):
    """For each block of queries, blocks of keys found by halving the stretches that look best.

    Blocks of keys are the leaves of a binary tree. A stretch of 2^l of them is scored by
    mean of q in the block of queries · its representative, the key in the middle of those that it
    holds. From stretches so long that there are at most twice as many as are wanted, the best are
    kept and halved, down to single blocks. A block of queries sees its own block, those of the
    sink, and what the search found between, so that there are `blocks` of them, or all. For n
    tokens it takes O(n log n) time.

    Source: HiP attention (Lee et al. 2024, arXiv 2406.09827). Stretches there are cut evenly
    for every query, and sink and recent tokens come on top; here they are cut at multiples of their
    length, and a block of queries is scored by its mean.

    Attributes:
        block: tokens of a block of queries and of one of keys.
        blocks: of keys, for each block of queries, its own and those of the sink included.
        sink: tokens; the blocks that they reach into are always seen.
    """

    paper = "Lee et al. 2024, arXiv 2406.09827"

    def select(self, attention: "Attention") -> Selection:
        grid = Grid.of(attention, self.block)
        chosen = grid.always(self.sink).expand(*attention.q.shape[:2], -1, -1).clone()
        if self.free:
            step = attention.q.shape[0] * attention.n_heads * 2 * self.free * attention.q.shape[3]
            tree = _Tree(grid, columns_of(self.sink, self.block), self.free)
            for rows in grid.own[:, 0].split(max(1, budget(attention) // step)):
                chosen[:, :, rows - grid.first] |= tree.search(rows)
        return Selection(blocks=chosen, block=self.block, first_block=grid.first, most=self.blocks)


class _Tree:
    """The keys of an attention in order of their positions, to be searched from coarse to fine."""

    def __init__(self, grid: Grid, skipped: int, wanted: int) -> None:
        attention = grid.attention
        key = attention.key_positions
        key = key[:, None].expand(-1, attention.n_kv_heads, -1) if key.ndim == 2 else key
        self.positions, self.order = key.sort(dim=-1, stable=True)  # padding, at -1, comes first
        self.queries = grid.mean_queries(attention.q)
        self.grid, self.skipped, self.wanted = grid, skipped, wanted

    def search(self, own: Int[Tensor, " some"]) -> Bool[Tensor, "batch head some column"]:
        """The blocks that blocks of queries, given by their own column, find before themselves."""
        grid, attention = self.grid, self.grid.attention
        level = 0
        while -(-grid.columns >> level) > 2 * self.wanted:
            level += 1
        shape = (*attention.q.shape[:2], len(own))
        count = -(-grid.columns >> level)
        node = torch.arange(count, device=own.device).expand(*shape, -1)
        alive = torch.ones_like(node, dtype=torch.bool)
        while True:
            scores = self._scores(node, level, own).masked_fill(~alive, -torch.inf)
            order = scores.argsort(dim=-1, descending=True, stable=True)[..., : self.wanted]
            node, scores = node.gather(-1, order), scores.gather(-1, order)
            alive = scores > -torch.inf
            if level == 0:
                break
            level -= 1
            node = torch.stack((2 * node, 2 * node + 1), dim=-1).flatten(-2)
            alive = alive.repeat_interleave(2, dim=-1)
        found = torch.zeros(*shape, grid.columns + 1, dtype=torch.bool, device=own.device)
        return found.scatter(-1, torch.where(alive, node, grid.columns), True)[..., :-1]

    def _scores(
        self, node: Int[Tensor, "batch head some node"], level: int, own: Int[Tensor, " some"]
    ) -> Float[Tensor, "batch head some node"]:
        grid, attention = self.grid, self.grid.attention
        own = own[:, None]
        reach = grid.within_reach(own[:, 0] * grid.block)
        first = reach.int().argmax(-1, keepdim=True).clamp(min=self.skipped)
        start = torch.maximum(node << level, first) * grid.block
        stop = torch.minimum((node + 1) << level, own) * grid.block
        low, high = self._place(start), self._place(torch.maximum(start, stop))
        middle = ((low + high) // 2).clamp(max=attention.n_keys - 1)
        index = self.order.gather(-1, self._by_kv(middle))
        k = wide(attention.k).gather(2, index[..., None].expand(-1, -1, -1, attention.k.shape[3]))
        k = rearrange(k, "b k (g i c) d -> b (k g) i c d", g=attention.group, i=len(own))
        q = self.queries[:, :, own[:, 0] - grid.first]
        scores = (q[:, :, :, None] * k).sum(-1) * attention.scale
        return scores.masked_fill(low >= high, -torch.inf)

    def _place(self, position: Int[Tensor, "batch head some node"]) -> Tensor:
        """How many keys are before a position, of the KV head that a head reads."""
        found = torch.searchsorted(self.positions, self._by_kv(position))
        return rearrange(
            found, "b k (g i c) -> b (k g) i c", g=self.grid.attention.group, i=position.shape[2]
        )

    def _by_kv(self, x: Tensor) -> Tensor:
        return rearrange(x, "b (k g) i c -> b k (g i c)", g=self.grid.attention.group).contiguous()
