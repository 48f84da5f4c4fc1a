"""The best of many numbers, without sorting them: bit by bit, the least that is good enough.

What is good enough is a bound that enough of a row reaches: enough numbers, or enough of their sum.
Amounts of both are float32, which counts exactly to 16 million.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.kernels.choice import on_its_device

_PER_WARP = 1024  # numbers of a row
_HELD = 8192  # numbers of a row that stay in the registers of a program
_COUNTED = tl.constexpr(False)  # rather than weighed
_CHUNK, _CHUNK_WARPS = 8192, 16  # longer rows are read in pieces, again and again


@triton.jit
def _order(x):
    """Integers that compare as the numbers do."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _amount(x, counts, WEIGHED: tl.constexpr):
    """What each number adds where it counts: itself, or one."""
    amount = counts.to(tl.float32)
    if WEIGHED:
        amount = tl.where(counts, x, 0.0)
    return amount


@triton.jit
def _kept(x, order, bound, above, earlier, target, WEIGHED: tl.constexpr):
    """Which numbers are above a bound, and which at it are still needed, the earlier first.

    Args:
        above: what all numbers above the bound amount to.
        earlier: how many at the bound come before these.
    """
    equal = order == bound
    rank = (earlier + tl.cumsum(equal.to(tl.int32), 0) - 1).to(tl.float32)
    if WEIGHED:
        needed, held = above + rank * x < target, x > 0
    else:
        needed, held = above + rank < target, x > float("-inf")
    return ((order > bound) | (equal & needed)) & held


@triton.jit
def _search(x, target, WEIGHED: tl.constexpr):
    """The choice from a row that is held whole."""
    order = _order(x)
    bound = tl.full([], -2147483648, tl.int32)
    for place in range(32):  # from the sign on
        higher = bound ^ (tl.full([], 1, tl.int32) << (31 - place))
        enough = tl.sum(_amount(x, order >= higher, WEIGHED), 0) >= target
        bound = tl.where(enough, higher, bound)
    above = tl.sum(_amount(x, order > bound, WEIGHED), 0)
    return _kept(x, order, bound, above, 0, target, WEIGHED)


@triton.jit(do_not_specialize=["n"])
def _short(
    scores, counts, chosen, n, target, COUNTED: tl.constexpr, WEIGHED: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """One program for one row. What is wanted is a count, one for each row, or a share."""
    row, j = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    x = tl.load(scores + row * n + j, mask=j < n, other=0.0 if WEIGHED else float("-inf"))
    if COUNTED:
        target = tl.load(counts + row).to(tl.float32)
    if WEIGHED:
        target = target * tl.sum(x, 0)
    tl.store(chosen + row * n + j, _search(x, target, WEIGHED).to(tl.uint8), mask=j < n)


@triton.jit(do_not_specialize=["rows", "n", "first", "skipped", "lowest"])
def _before(
    scores, chosen, rows, n, target, first, skipped, lowest, WIDTH: tl.constexpr
):  # fmt: skip
    """The same among what is before each row's own, which is chosen too, as the first are."""
    row, j = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    own = first + (row % rows).to(tl.int32)
    free = (j >= skipped) & (j >= lowest) & (j < own) & (j < n)
    x = tl.load(scores + row * n + j, mask=free, other=float("-inf"))
    always = (j == own) | ((j < skipped) & (j < own))
    seen = _search(x, target, _COUNTED) | always
    tl.store(chosen + row * n + j, seen.to(tl.uint8), mask=j < n)


@triton.jit(do_not_specialize=["n"])
def _long(
    scores, counts, chosen, n, target, COUNTED: tl.constexpr, WEIGHED: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """One program for a row that it has to read many times, for two bits of the bound at a time."""
    row, some = tl.program_id(0).to(tl.int64), tl.arange(0, CHUNK)
    mine, out = scores + row * n, chosen + row * n
    other = 0.0 if WEIGHED else float("-inf")
    if COUNTED:
        target = tl.load(counts + row).to(tl.float32)
    if WEIGHED:
        whole = tl.zeros([CHUNK], tl.float32)
        for start in range(0, n, CHUNK):
            whole += tl.load(mine + start + some, mask=start + some < n, other=other)
        target = target * tl.sum(whole, 0)
    bound, one = tl.full([], -2147483648, tl.int32), tl.full([], 1, tl.int32)
    for place in range(16):
        low, high = one << (30 - 2 * place), one << (31 - 2 * place)
        by_low = tl.zeros([CHUNK], tl.float32)
        by_high, by_both = by_low, by_low
        for start in range(0, n, CHUNK):
            x = tl.load(mine + start + some, mask=start + some < n, other=other)
            order = _order(x)
            by_low += _amount(x, order >= (bound ^ low), WEIGHED)
            by_high += _amount(x, order >= (bound ^ high), WEIGHED)
            by_both += _amount(x, order >= (bound ^ high ^ low), WEIGHED)
        if tl.sum(by_both, 0) >= target:
            bound = bound ^ high ^ low
        elif tl.sum(by_high, 0) >= target:
            bound = bound ^ high
        elif tl.sum(by_low, 0) >= target:
            bound = bound ^ low
    sums = tl.zeros([CHUNK], tl.float32)
    for start in range(0, n, CHUNK):
        x = tl.load(mine + start + some, mask=start + some < n, other=other)
        sums += _amount(x, _order(x) > bound, WEIGHED)
    above, earlier = tl.sum(sums, 0), tl.full([], 0, tl.int32)
    for start in range(0, n, CHUNK):
        x = tl.load(mine + start + some, mask=start + some < n, other=other)
        order = _order(x)
        kept = _kept(x, order, bound, above, earlier, target, WEIGHED)
        tl.store(out + start + some, kept.to(tl.uint8), mask=start + some < n)
        earlier += tl.sum((order == bound).to(tl.int32), 0)


@on_its_device
def best(
    scores: Float[Tensor, "*rows n"], count: int | Int[Tensor, "*rows"]
) -> Bool[Tensor, "*rows n"]:
    """What `headscope.patterns.selectors.choosing.best` chooses, for rows of float32.

    Args:
        count: how many, for all rows or for each.
    """
    if isinstance(count, Tensor):
        return _chosen(scores, 0.0, counts=count.contiguous())
    return _chosen(scores, float(count))


@on_its_device
def fewest(weights: Float[Tensor, "*rows n"], share: float) -> Bool[Tensor, "*rows n"]:
    """What `headscope.patterns.selectors.choosing.fewest` chooses, for rows of float32.

    Args:
        weights: 0 or more.
        share: of their sum, above 0 and up to 1.
    """
    return _chosen(weights, share, weighed=True)


@on_its_device
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
        launch: Any = _before[(scores.numel() // n,)]
        launch(
            scores, chosen.view(torch.uint8), rows, n, float(count), first, skipped, lowest,
            WIDTH=width, num_warps=_warps(width),
        )  # fmt: skip
    return chosen


def _chosen(
    x: Tensor, target: float, counts: Tensor | None = None, weighed: bool = False
) -> Tensor:
    n, x = x.shape[-1], x.contiguous()
    chosen = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    if x.numel() == 0:
        return chosen
    width, grid = triton.next_power_of_2(n), (x.numel() // n,)
    counted = counts is not None
    given = (x, counts if counted else x, chosen.view(torch.uint8), n, target, counted, weighed)
    if n <= _HELD:
        short: Any = _short[grid]
        short(*given, WIDTH=width, num_warps=_warps(width))
    else:
        long: Any = _long[grid]
        long(*given, CHUNK=_CHUNK, num_warps=_CHUNK_WARPS)
    return chosen


def _warps(width: int) -> int:
    """One warp adds without waiting for others; more have to hold what it cannot."""
    return max(1, width // _PER_WARP)
