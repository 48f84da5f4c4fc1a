"""What selectors of a fixed number of blocks have in common."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from headscope.errors import HeadscopeError
from headscope.patterns.limits import at_least
from headscope.patterns.selectors.base import Selector
from headscope.patterns.selectors.grid import columns_of


@dataclass(frozen=True)
class _BlockBudget(Selector):
    """A number of key blocks for each block of queries, its own and those of the sink included.

    Attributes:
        block: tokens of a block of queries and of one of keys.
        blocks: of keys, for each block of queries; fewer where there are no more before it.
        sink: tokens; the blocks that they reach into are always seen.
    """

    decodes: ClassVar[bool] = True
    block: int = 64
    blocks: int = 16
    sink: int = 4

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"block": 1, "blocks": 1, "sink": 0})
        if self.free < 0:
            raise HeadscopeError(
                f"The rule {self.name!r} always sees a query's own block and "
                f"{columns_of(self.sink, self.block)} of the sink, for which blocks={self.blocks} "
                "are too few; give it more, or a smaller sink."
            )

    @property
    def free(self) -> int:
        """Blocks that content decides about."""
        return self.blocks - 1 - columns_of(self.sink, self.block)

    def density(self, n: int) -> float:
        row = torch.arange(n)
        before = (row // self.block).clamp(max=self.blocks - 1) * self.block
        seen = before + row % self.block + 1
        return int(seen.sum()) / int((row + 1).sum()) if n else 1.0
