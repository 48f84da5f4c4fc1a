from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.blocks import wide
from headscope.errors import HeadscopeError
from headscope.patterns.limits import at_least, share
from headscope.patterns.selection import Selection
from headscope.patterns.selectors.base import Selector
from headscope.patterns.selectors.choosing import fewest
from headscope.patterns.selectors.grid import Grid
from headscope.patterns.selectors.lines import Lines, blocks_crossed

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True)
class FlexPrefill(Selector):
    """Blocks by their means where means can be trusted, else columns and diagonals.

    Of the last `block` rows, a = softmax over blocks of mean q · mean k is what means foretell of
    each block of keys, b = what attention the block really receives. Where the Jensen-Shannon
    distance sqrt((KL(a | m) + KL(b | m)) / 2), m = (a + b) / 2, in nats, is below `tau`, a head is
    query-aware: of all blocks, rows of softmax(mean q · mean k) weighing the same, it sees the
    fewest that hold a share `gamma`. Any other head sees the fewest columns, and the fewest
    diagonals, that hold a share `gamma` of what these last rows attend to, as in `VerticalSlash`.
    The block of queries itself and those of the sink are always seen.

    Source: FlexPrefill (Lai et al. 2025, arXiv 2502.20766), algorithms 1 to 4. Its code chooses
    columns and diagonals in whole blocks and sees 1 024 tokens at least; here columns are single
    tokens, as in the paper.

    Attributes:
        gamma: share of attention, above 0 and at most 1.
        tau: distance, 0 (no head is query-aware) to sqrt(ln 2) = 0.83, which none exceeds.
        sink: tokens; the blocks that they reach into are always seen.
        block: tokens of a block of queries and of one of keys.
    """

    paper = "Lai et al. 2025, arXiv 2502.20766"
    gamma: float = 0.9
    tau: float = 0.1
    sink: int = 4
    block: int = 128

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "block": 1})
        share(self.name, "gamma", self.gamma)
        if not 0 <= self.tau <= 1:
            raise HeadscopeError(
                f"The rule 'flex_prefill' needs tau from 0 to 1, not {self.tau!r}."
            )

    def select(self, attention: "Attention") -> Selection:
        grid, lines = Grid.of(attention, self.block), Lines.of(attention, self.block)
        distance = js_distance(_foretold(lines, grid), lines.on_columns(grid))
        aware = distance < self.tau
        # Rows of softmax without candidates, or without queries, are nothing rather than NaN.
        weights = grid.logits().softmax(-1).nan_to_num(0) * grid.has_queries()[:, None, :, None]
        by_means = fewest(weights.flatten(2), self.gamma).view_as(weights)
        crossed = blocks_crossed(fewest(lines.diagonals, self.gamma), grid)
        chosen = torch.where(aware[..., None, None], by_means, crossed)
        return Selection(
            blocks=chosen | grid.always(self.sink),
            block=self.block,
            first_block=grid.first,
            columns=fewest(lines.columns, self.gamma) & ~aware[..., None],
        )


def _foretold(lines: Lines, grid: Grid) -> Float[Tensor, "batch head column"]:
    """How the mean of the last queries would share its attention among the means of blocks."""
    late = lines.late[:, None, :, None]
    sums = (wide(grid.attention.q) * late).sum(2, keepdim=True)
    logits = grid.logits_of(sums / late.sum(2, keepdim=True).clamp(min=1))[:, :, 0]
    return logits.masked_fill(~lines.candidates(grid), -torch.inf).softmax(-1).nan_to_num(0)


def js_distance(a: Float[Tensor, "*rows n"], b: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """The root of the Jensen-Shannon divergence of distributions, in nats."""
    mean = (a + b) / 2
    # xlogy(x, x / m) would divide 0 by 0 where both are nothing.
    gap = torch.xlogy(a, a) + torch.xlogy(b, b) - 2 * torch.xlogy(mean, mean)
    return (gap.sum(-1) / 2).clamp(min=0).sqrt()
