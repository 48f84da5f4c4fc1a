"""The best of many numbers, without sorting them: bit by bit, the least that is good enough."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

_PER_WARP = 1024


@triton.jit
def _keep(x, count):
    """The `count` highest of a row: the earlier of two that are equal, and never -inf."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers that compare as the numbers do
    least = tl.full([], -2147483648, tl.int32)
    for place in range(32):
        # From the sign on: the highest bits of a bound that enough numbers reach.
        higher = least ^ (tl.full([], 1, tl.int32) << (31 - place))
        enough = tl.sum((order >= higher).to(tl.int32), 0) >= count
        least = tl.where(enough, higher, least)
    above, equal = order > least, (order == least).to(tl.int32)
    left = count - tl.sum(above.to(tl.int32), 0)
    return (above | ((equal != 0) & (tl.cumsum(equal, 0) <= left))) & (x > float("-inf"))


@triton.jit(do_not_specialize=["n", "count"])
def _best(scores, counts, chosen, n, count, COUNTED: tl.constexpr, WIDTH: tl.constexpr):
    """One program for one row."""
    row, j = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    x = tl.load(scores + row * n + j, mask=j < n, other=float("-inf"))
    if COUNTED:
        count = tl.load(counts + row).to(tl.int32)
    tl.store(chosen + row * n + j, _keep(x, count).to(tl.uint8), mask=j < n)


@triton.jit(do_not_specialize=["rows", "n", "count", "first", "skipped", "lowest"])
def _best_before(
    scores, chosen, rows, n, count, first, skipped, lowest, WIDTH: tl.constexpr
):  # fmt: skip
    """The same among what is before each row's own, which is chosen too, as the first are."""
    row, j = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    own = first + (row % rows).to(tl.int32)
    free = (j >= skipped) & (j >= lowest) & (j < own) & (j < n)
    x = tl.load(scores + row * n + j, mask=free, other=float("-inf"))
    always = (j == own) | ((j < skipped) & (j < own))
    tl.store(chosen + row * n + j, (_keep(x, count) | always).to(tl.uint8), mask=j < n)


def best(
    scores: Float[Tensor, "*rows n"], count: int | Int[Tensor, "*rows"]
) -> Bool[Tensor, "*rows n"]:
    """What `headscope.patterns.selectors.choosing.best` chooses, for rows of float32 on a GPU.

    Args:
        scores: rows of so many numbers that a program holds one: at most 8 192.
        count: how many, for all rows or for each.
    """
    n = scores.shape[-1]
    scores = scores.contiguous()
    chosen = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    counted = isinstance(count, Tensor)
    counts = count.contiguous() if counted else chosen
    if scores.numel():
        width = triton.next_power_of_2(n)
        launch: Any = _best[(scores.numel() // n,)]
        launch(
            scores, counts, chosen.view(torch.uint8), n, 0 if counted else count, COUNTED=counted,
            WIDTH=width, num_warps=_warps(width),
        )  # fmt: skip
    return chosen


def best_before(
    scores: Float[Tensor, "batch head row column"],
    count: int,
    first: int,
    skipped: int,
    lowest: int,
) -> Bool[Tensor, "batch head row column"]:
    """The best columns before each row's own; its own and the skipped ones are seen besides.

    Args:
        scores: of at most 8 192 columns.
        count: how many.
        first: the column that belongs to the first row.
        skipped: columns from the start that every row at or behind them sees.
        lowest: the first column that holds anything.
    """
    rows, n = scores.shape[2:]
    scores = scores.contiguous()
    chosen = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    if scores.numel():
        width = triton.next_power_of_2(n)
        launch: Any = _best_before[(scores.numel() // n,)]
        launch(
            scores, chosen.view(torch.uint8), rows, n, count, first, skipped, lowest, WIDTH=width,
            num_warps=_warps(width),
        )  # fmt: skip
    return chosen


def _warps(width: int) -> int:
    """One warp adds without waiting for others; more have to hold what it cannot."""
    return max(1, width // _PER_WARP)
