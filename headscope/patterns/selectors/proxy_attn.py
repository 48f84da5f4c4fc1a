import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from headscope.blocks import wide, wide_dtype
from headscope.patterns.limits import at_least, share
from headscope.patterns.selection import Selection
from headscope.patterns.selectors.base import Selector
from headscope.patterns.selectors.choosing import best, fewest
from headscope.patterns.selectors.grid import Grid
from headscope.patterns.selectors.lines import Lines

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True)
class ProxyAttn(Selector):
    """Blocks by the attention of one head that stands for its group; how many, by each head's own.

    The proxy of a KV head has the mean of its query heads' queries. score(i, j) = the most that a
    query of block i gives to a key of block j in the proxy's attention, the same for all heads of
    the group. A head's budget is the number m of blocks that hold a share `gamma` of what its own
    last `block` rows attend to, out of J that they can see: of c blocks that it can see, a block
    of queries sees ceil(m c / J), those with the highest score. The block of queries itself and
    those of the sink are always seen besides.

    Edits of the attention count in budgets and not in scores, since they are of single heads. A
    group is whole: heads taken out of one with `some_heads` have another proxy.

    Source: after ProxyAttn (Wang et al. 2025, arXiv 2509.24745). Proxies there may stand for heads
    of several KV groups and look at a part of the tokens; here one stands for one group and looks
    at all, in time of one head in place of the group's.

    Attributes:
        gamma: share of attention, above 0 and at most 1.
        sink: tokens; the blocks that they reach into are always seen.
        block: tokens of a block of queries and of one of keys.
    """

    paper = "after Wang et al. 2025, arXiv 2509.24745"
    gamma: float = 0.95
    sink: int = 4
    block: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "block": 1})
        share(self.name, "gamma", self.gamma)

    def select(self, attention: "Attention") -> Selection:
        grid, lines = Grid.of(attention, self.block), Lines.of(attention, self.block)
        candidates = grid.candidates()
        needed = fewest(lines.on_columns(grid), self.gamma).sum(-1)[..., None]
        out_of = lines.candidates(grid).sum(-1).clamp(min=1)[..., None]
        budget = (needed * candidates.sum(-1) + out_of - 1) // out_of
        scores = _scores(grid).repeat_interleave(attention.group, dim=1)
        chosen = best(scores.masked_fill(~candidates, -torch.inf), budget)
        seen = chosen | grid.always(self.sink)
        return Selection(blocks=seen, block=self.block, first_block=grid.first)


def _scores(grid: Grid) -> Float[Tensor, "batch kv_head row column"]:
    """The greatest attention of each KV group's proxy in every square of the grid."""
    proxy = _proxies(grid.attention)
    rows, columns = grid.row_of_queries()[:, 0], grid.column_of_keys()
    shape = (len(proxy.q), proxy.n_heads, grid.rows + 1, grid.columns + 1)
    scores = torch.zeros(shape, dtype=wide_dtype(proxy.q), device=proxy.q.device)
    for tile in proxy.tiles():
        p = tile.probabilities
        slot = columns[..., tile.keys].expand(*p.shape[:2], -1)
        wide_slot = slot[:, :, None].expand_as(p)
        strips = p.new_zeros(*p.shape[:3], shape[3]).scatter_reduce(3, wide_slot, p, "amax")
        row = rows[:, None, tile.queries, None].expand_as(strips)
        scores = scores.scatter_reduce(2, row, strips, "amax")
    return scores[:, :, :-1, :-1]


def _proxies(attention: "Attention") -> "Attention":
    """One query head for every KV head, the mean of its group."""
    q = reduce(wide(attention.q), "b (k g) q d -> b k q d", "mean", g=attention.group)
    mask = attention.mask
    if mask is not None and mask.shape[1] > 1:
        mask = reduce(mask, "b (k g) q j -> b k q j", "any", g=attention.group)
    return dataclasses.replace(
        attention, q=q, mask=mask, sink_logits=None, edits=(), known_lse=None
    )
