from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from headscope.blocks import wide
from headscope.errors import HeadscopeError
from headscope.patterns.limits import at_least, share
from headscope.patterns.selection import Selection
from headscope.patterns.selectors.base import Selector
from headscope.patterns.selectors.choosing import fewest
from headscope.patterns.selectors.grid import Grid

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True)
class SelfSimilarity(Selector):
    """Blocks by their means, but only of blocks whose tokens are alike.

    similarity of a block = mean cosine over all pairs of its vectors, each with itself among them,
    which is the squared length of the mean of its unit vectors; in [0, 1]. A block is alike where
    it is above `theta`. Among the alike blocks of keys a block of queries sees the fewest that
    hold a share `tau` of softmax(mean q · mean k); it sees every block of keys that is not alike,
    and sees everything where it is not alike itself. The block of queries itself and those of the
    sink are always seen.

    Source: the first stage of SpargeAttn (Zhang et al. 2025, arXiv 2502.18137). As in its
    code, pairs of a vector with itself count; there blocks are of 128 queries and 64 keys, and
    neither own block nor sink is sure. Its second stage, which skips values inside the kernel, is
    no selection.

    Attributes:
        tau: share of attention, above 0 and at most 1.
        theta: similarity, -1 (all blocks are alike) to 1.
        sink: tokens; the blocks that they reach into are always seen.
        block: tokens of a block of queries and of one of keys.
    """

    paper = "Zhang et al. 2025, arXiv 2502.18137"
    tau: float = 0.9
    theta: float = 0.1
    sink: int = 4
    block: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "block": 1})
        share(self.name, "tau", self.tau)
        if not -1 <= self.theta <= 1:
            raise HeadscopeError(
                f"The rule 'self_similarity' needs theta from -1 to 1, not {self.theta!r}."
            )

    def select(self, attention: "Attention") -> Selection:
        grid = Grid.of(attention, self.block)
        queries = self._alike(grid.mean_queries(normalize(wide(attention.q), dim=-1)))
        keys = self._alike(grid.mean_keys(normalize(wide(attention.k), dim=-1)))
        keys = keys.repeat_interleave(attention.group, dim=1)[:, :, None]
        weights = grid.logits().masked_fill(~keys, -torch.inf).softmax(-1).nan_to_num(0)
        chosen = fewest(weights, self.tau) | ~keys | ~queries[..., None]
        seen = (chosen & grid.candidates()) | grid.always(self.sink)
        return Selection(blocks=seen, block=self.block, first_block=grid.first)

    def _alike(self, mean_of_units: Float[Tensor, "batch some block d"]) -> Tensor:
        return mean_of_units.square().sum(-1) > self.theta
