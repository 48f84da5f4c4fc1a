from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.base import Pattern


@dataclass(frozen=True)
class Full(Pattern):
    """Every key that causality allows."""

    paper = "Vaswani et al. 2017, arXiv 1706.03762"

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        return torch.ones(torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool).to(
            query.device
        )

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(0, last + 1)]

    def density(self, n: int) -> float:
        return 1.0

    def repeats(self) -> tuple[int, int]:
        return 1, 0
