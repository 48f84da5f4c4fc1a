"""The pass over columns: one program for N keys of one head, queries in tiles of M.

Each row's log-sum-exp is known, so that a tile of probabilities is one exponential away. Sums over
queries stay in registers until the end.
"""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from headscope.kernels.logits import capped, load_tile
from headscope.kernels.stats_tiles import fold_max, fold_sum, seen_pairs


@triton.jit
def _span(
    sums, k, q_in, lse, squares, batch, head, start, stop, key0, n_queries, n_keys, n_squares,
    ahead, window, q_b, q_h, q_n, mult, inner, cap, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, SPREAD: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, SUMS: tl.constexpr, SQUARES: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The tiles from query `start` to `stop`."""
    within = tl.arange(0, M)
    for at in tl.range(start, stop, M):
        q = load_tile(q_in, batch, head, at, n_queries, q_b, q_h, q_n, M, WIDTH, BLOCK_D, TMA, True)
        # Rows that are not there, like rows that see no key, have lse = inf.
        of_row = tl.load(lse + at + within, mask=at + within < n_queries, other=float("inf"))
        s = capped(tl.dot(q, k.T, input_precision=PRECISION), inner, cap, SOFTCAP)
        p = tl.exp2(s * mult - of_row[:, None])
        if MASKED:
            columns = key0 + tl.arange(0, N)
            p = tl.where(seen_pairs(at + within + ahead, columns, n_keys, window, WINDOW), p, 0.0)
        if SUMS:
            sums += tl.sum(tl.reshape(p, (M // 16, 2, 8, N)), 1)
        if SQUARES == 1:
            of_square = tl.max(tl.max(fold_max(p, M, N, SPREAD), 1), 0)
            tl.store(squares + n_squares.to(tl.int64) * (at // M), of_square)
        if SQUARES == 2:
            of_square = tl.sum(tl.sum(fold_sum(p, M, N, SPREAD), 1), 0)
            tl.store(squares + n_squares.to(tl.int64) * (at // M), of_square)
    return sums


@triton.jit(do_not_specialize=["n_queries", "n_keys", "n_bands", "n_squares", "ahead", "window"])
def columns_kernel(
    q_in, k_in, lse, sums_out, squares_out, n_queries, n_keys, n_bands, n_squares, ahead, window,
    mult, inner, cap, q_b, q_h, q_n, k_b, k_h, k_n,
    HEADS: tl.constexpr, GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, SPREAD: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, SUMS: tl.constexpr, SQUARES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What N keys receive from all queries, and the largest (1) or the sum (2) of each square of
    M × N pairs; `lse` is in powers of two."""
    key0 = tl.program_id(0) * N
    of_head = tl.program_id(1)
    batch, head = of_head // HEADS, of_head % HEADS
    k = load_tile(
        k_in, batch, head // GROUP, key0, n_keys, k_b, k_h, k_n, N, WIDTH, BLOCK_D, TMA, True
    )
    lse += of_head.to(tl.int64) * n_queries
    squares = squares_out + of_head.to(tl.int64) * n_bands * n_squares + tl.program_id(0)

    end = n_queries
    if WINDOW:
        end = tl.maximum(tl.minimum(n_queries, key0 + N - 1 + window - ahead), 0)
    low = tl.minimum(tl.maximum(key0 - ahead, 0), end) // M * M
    whole = (tl.maximum(key0 + N - 1 - ahead, 0) + M - 1) // M * M
    edge = (end + M - 1) // M * M
    if WINDOW:
        edge = tl.maximum(key0 + window - ahead, 0) // M * M
    # Of a tile that has keys which are not there, all pairs are looked at.
    edge = tl.where(key0 + N > n_keys, 0, edge)
    whole = tl.minimum(whole, (end + M - 1) // M * M)
    edge = tl.maximum(edge, whole)

    # Of 16 rows, one thread holds the same columns in two, 8 apart: these are added at once.
    sums = tl.zeros((M // 16, 8, N), tl.float32)
    sums = _span(
        sums, k, q_in, lse, squares, batch, head, low, tl.minimum(whole, end), key0, n_queries,
        n_keys, n_squares, ahead, window, q_b, q_h, q_n, mult, inner, cap, M, N, WIDTH, BLOCK_D,
        TMA, SPREAD, SOFTCAP, WINDOW, SUMS, SQUARES, PRECISION, True,
    )  # fmt: skip
    sums = _span(
        sums, k, q_in, lse, squares, batch, head, whole, tl.minimum(edge, end), key0, n_queries,
        n_keys, n_squares, ahead, window, q_b, q_h, q_n, mult, inner, cap, M, N, WIDTH, BLOCK_D,
        TMA, SPREAD, SOFTCAP, WINDOW, SUMS, SQUARES, PRECISION, False,
    )  # fmt: skip
    sums = _span(
        sums, k, q_in, lse, squares, batch, head, edge, end, key0, n_queries,
        n_keys, n_squares, ahead, window, q_b, q_h, q_n, mult, inner, cap, M, N, WIDTH, BLOCK_D,
        TMA, SPREAD, SOFTCAP, WINDOW, SUMS, SQUARES, PRECISION, True,
    )  # fmt: skip
    if SUMS:
        column = key0 + tl.arange(0, N)
        at = of_head.to(tl.int64) * n_keys + column
        tl.store(sums_out + at, tl.sum(tl.sum(sums, 1), 0), mask=column < n_keys)
