"""What kernels that compute logits share: tiles of q, k and v, and the soft-cap."""

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
    """TILE rows of one head from `start` on; those outside 0 to `stop` are 0 where EDGE says so."""
    if TMA:
        rows = x.load([batch, head, start, 0]).reshape(TILE, BLOCK_D)
    else:
        row, column = start + tl.arange(0, TILE), tl.arange(0, BLOCK_D)
        at = x + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
        at = at + row[:, None].to(tl.int64) * stride_n + column[None, :]
        if EDGE:
            held = ((row >= 0) & (row < stop))[:, None] & (column < WIDTH)[None, :]
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
