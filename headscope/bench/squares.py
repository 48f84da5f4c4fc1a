"""Patterns on a grid of squares: which squares have some pair that is seen, and which all."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.kernels.tiles import TILE, Reach, Span, tiling
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full

Squares = tuple[Bool[Tensor, "row column"], Bool[Tensor, "row column"]]


@lru_cache(maxsize=64)
def squares(pattern: Pattern, n: int, side: int, device: torch.device) -> Squares:
    """(touched, filled) squares of a pattern over n tokens; causality is part of both.

    They are joined from the tiles that the prefill kernel computes.

    Args:
        side: tokens, a multiple of the kernel's tiles of 64.
    """
    count, per = -(-n // side), side // TILE
    if pattern == Full():
        touched = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        filled = touched.tril(-1)
        if n % side:
            filled[-1] = False
        return touched, filled
    tiles = tiling(pattern, Span(0, n, 0, n), Reach(), device)
    rows = len(tiles.runs)
    column = torch.arange(count * per, device=device)
    whole = torch.zeros(count * per, count * per, dtype=torch.bool, device=device)
    for i in (0, 2):
        start, length = (x[:, None] for x in (tiles.runs[:, i], tiles.runs[:, i + 1]))
        whole[:rows] |= (column >= start) & (column < start + length)
    _mark(whole, tiles.whole, tiles.n_whole)
    seen = whole.clone()
    _mark(seen, tiles.partly, tiles.n_partly)
    touched, filled = (x.view(count, per, count, per) for x in (seen, whole))
    filled = filled.all(3).all(1)
    if n % side:
        filled[-1] = False
    return touched.any(3).any(1), filled


def _mark(grid: Tensor, columns: Int[Tensor, " tile"], counts: Int[Tensor, " row"]) -> None:
    row = torch.arange(len(counts), device=counts.device).repeat_interleave(counts.long())
    grid[row, columns.long()] = True
