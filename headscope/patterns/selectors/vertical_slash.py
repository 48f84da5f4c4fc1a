from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headscope.errors import HeadscopeError
from headscope.patterns.limits import at_least
from headscope.patterns.selection import Selection
from headscope.patterns.selectors.base import Selector
from headscope.patterns.selectors.choosing import best
from headscope.patterns.selectors.grid import Grid
from headscope.patterns.selectors.lines import Lines, blocks_crossed

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True)
class VerticalSlash(Selector):
    """The columns and the diagonals that hold most attention of a text's last rows.

    column(j) = sum over the last `last_q` rows i of A[i, j], diagonal(d) = sum over these rows of
    A[i, j] where query - key = d. A row sees the `vertical` keys with the greatest column(j), the
    first `sink` positions always among them, and the `slash` distances with the greatest
    diagonal(d), the first `window` always among them. Columns are seen as single tokens, diagonals
    in all blocks of a grid that they cross.

    Source: MInference (Jiang et al. 2024, arXiv 2407.02490) and its code, which has the first 30
    columns and 100 diagonals for sure and widens each diagonal to a block that begins with it; here
    blocks lie on a grid of positions, so that a diagonal between two of them crosses both.

    Attributes:
        vertical: keys, those of the sink included.
        slash: distances, those of the window included.
        last_q: rows that choose.
        sink: tokens.
        window: tokens, the query's own among them.
        block: tokens of the blocks that diagonals are widened to.
    """

    paper = "Jiang et al. 2024, arXiv 2407.02490"
    vertical: int = 1000
    slash: int = 6096
    last_q: int = 64
    sink: int = 30
    window: int = 100
    block: int = 64

    def __post_init__(self) -> None:
        least = {"vertical": 0, "slash": 1, "last_q": 1, "sink": 0, "window": 1, "block": 1}
        at_least(self.name, vars(self), least)
        if self.vertical < self.sink or self.slash < self.window:
            raise HeadscopeError(
                f"The rule 'vertical_slash' counts its sink in vertical and its window in slash: "
                f"vertical={self.vertical} cannot be below sink={self.sink}, nor "
                f"slash={self.slash} below window={self.window}."
            )

    def select(self, attention: "Attention") -> Selection:
        lines = Lines.of(attention, self.last_q)
        last = lines.ends(attention)[:, 1, None, None]
        key = attention.keys_by_head()
        columns = lines.columns.masked_fill((key < 0) | (key > last), -torch.inf)
        sink = (key >= 0) & (key < self.sink) & (key <= last)
        distance = torch.arange(lines.diagonals.shape[2], device=key.device)
        diagonals = lines.diagonals.masked_fill(distance > last, -torch.inf)
        near = (distance < self.window) & (distance <= last)
        grid = Grid.of(attention, self.block)
        slash = best(diagonals.masked_fill(near, torch.inf), self.slash)
        return Selection(
            blocks=blocks_crossed(slash, grid),
            block=self.block,
            first_block=grid.first,
            columns=best(columns.masked_fill(sink, torch.inf), self.vertical),
        )
