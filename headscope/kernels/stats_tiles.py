"""What the kernels of statistics share: tiles of q and k, logits, and sums along a row."""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def load_tile(
    x, batch, head, start, stop, stride_b, stride_h, stride_n, TILE: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """TILE rows of one head from `start` on; rows from `stop` on are 0 where EDGE says so."""
    if TMA:
        rows = x.load([batch, head, start, 0]).reshape(TILE, BLOCK_D)
    else:
        row, column = start + tl.arange(0, TILE), tl.arange(0, BLOCK_D)
        at = x + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
        at = at + row[:, None].to(tl.int64) * stride_n + column[None, :]
        if EDGE:
            held = (row < stop)[:, None] & (column < WIDTH)[None, :]
            rows = tl.load(at, mask=held, other=0.0)
        elif WIDTH < BLOCK_D:
            rows = tl.load(at, mask=(column < WIDTH)[None, :], other=0.0)
        else:
            rows = tl.load(at)
    return rows


@triton.jit
def capped(s, inner, cap, SOFTCAP: tl.constexpr):
    """Products with the soft-cap, in powers of two; other kernels scale them in the exponent."""
    if SOFTCAP:
        # tanh by powers of two: x -> 1 - 2 / (e^2x + 1), which saturates where e^2x overflows.
        s = cap * (1 - 2 / (tl.exp2(s * inner) + 1))
    return s


@triton.jit
def seen_pairs(own, columns, n_keys, window, WINDOW: tl.constexpr):
    """Which rows see which keys; `own` is the index of each row's own key."""
    behind = own[:, None] - columns[None, :]
    seen = (behind >= 0) & (columns < n_keys)[None, :]
    if WINDOW:
        seen = seen & (behind < window)
    return seen


@triton.jit
def fold_sum(x, M: tl.constexpr, N: tl.constexpr, SPREAD: tl.constexpr):
    """Sums of every SPREAD-th column: those that one thread holds, so that none are exchanged."""
    if SPREAD == 1:
        out = tl.sum(x, 1)[:, None]
    else:
        out = tl.sum(tl.reshape(x, (M, N // SPREAD, SPREAD)), 1)
    return out


@triton.jit
def fold_max(x, M: tl.constexpr, N: tl.constexpr, SPREAD: tl.constexpr):
    """The same with the largest of each."""
    if SPREAD == 1:
        out = tl.max(x, 1)[:, None]
    else:
        out = tl.max(tl.reshape(x, (M, N // SPREAD, SPREAD)), 1)
    return out
