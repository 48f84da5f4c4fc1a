"""Probability inside one region, over those tiles alone that the region touches."""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from headscope.kernels.logits import capped, load_tile
from headscope.kernels.stats_tiles import fold_sum, seen_pairs


@triton.jit
def _inside(
    q, k_in, lse, batch, kv_head, at, own, n_keys, k_b, k_h, k_n, mult, inner, cap, window,
    M: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
    TMA: tl.constexpr, SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The probabilities of one tile of keys, 0 where they are hidden."""
    k = load_tile(k_in, batch, kv_head, at, n_keys, k_b, k_h, k_n, N, WIDTH, BLOCK_D, TMA, True)
    s = capped(tl.dot(q, k.T, input_precision=PRECISION), inner, cap, SOFTCAP)
    p = tl.exp2(s * mult - lse[:, None])
    return tl.where(seen_pairs(own, at + tl.arange(0, N), n_keys, window, WINDOW), p, 0.0)


@triton.jit(
    do_not_specialize=[
        "n_queries", "n_keys", "ahead", "window", "first_key", "sink", "width"
    ]
)  # fmt: skip
def mass_kernel(
    q_in, k_in, lse_in, members, tiles, before, out, n_queries, n_keys, ahead, window,
    first_key, sink, width, mult, inner, cap, q_b, q_h, q_n, k_b, k_h, k_n,
    s_b, s_h, l_b, l_h,
    HEADS: tl.constexpr, GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, SPREAD: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, SET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Mass of M queries on a SET of keys, or on the first `sink` positions and the last `width`.

    `lse` is in powers of two, inf where a row sees no key. `tiles` lists those with members first,
    `before` counts those that lie before each tile.
    """
    q0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    of_head = tl.program_id(1)
    batch, head = of_head // HEADS, of_head % HEADS
    kv_head = head // GROUP
    q = load_tile(q_in, batch, head, q0, n_queries, q_b, q_h, q_n, M, WIDTH, BLOCK_D, TMA, True)
    row = q0 + tl.arange(0, M)
    held = row < n_queries
    place = of_head.to(tl.int64) * n_queries + row
    lse = tl.load(lse_in + place, mask=held, other=float("inf"))
    first = q0 + ahead
    own = row + ahead
    within = tl.arange(0, N)
    high = tl.maximum(tl.minimum(n_keys, tl.minimum(q0 + M, n_queries) + ahead), 0)
    low = 0
    if WINDOW:
        low = tl.maximum(first - window + 1, 0) // N * N
    low = tl.minimum(low, (high + N - 1) // N * N)
    total = tl.zeros((M, SPREAD), tl.float32)
    if SET:
        members += batch.to(tl.int64) * s_b + head.to(tl.int64) * s_h
        tiles += batch.to(tl.int64) * l_b + head.to(tl.int64) * l_h
        before += batch.to(tl.int64) * l_b + head.to(tl.int64) * l_h
        start = tl.load(before + low // N)
        stop = tl.load(before + (high + N - 1) // N)
        for index in tl.range(start, stop):
            at = tl.load(tiles + index) * N
            p = _inside(
                q, k_in, lse, batch, kv_head, at, own, n_keys, k_b, k_h, k_n, mult, inner, cap,
                window, M, N, WIDTH, BLOCK_D, TMA, SOFTCAP, WINDOW, PRECISION,
            )  # fmt: skip
            counts = tl.load(members + at + within, mask=at + within < n_keys, other=0)
            total += fold_sum(tl.where(counts[None, :] != 0, p, 0.0), M, N, SPREAD)
    else:
        near = tl.maximum(first - width + 1, 0) // N * N
        near = tl.minimum(tl.maximum(near, low), (high + N - 1) // N * N)
        for at in tl.range(low, tl.minimum(near, sink - first_key), N):
            p = _inside(
                q, k_in, lse, batch, kv_head, at, own, n_keys, k_b, k_h, k_n, mult, inner, cap,
                window, M, N, WIDTH, BLOCK_D, TMA, SOFTCAP, WINDOW, PRECISION,
            )  # fmt: skip
            p = tl.where((at + within + first_key < sink)[None, :], p, 0.0)
            total += fold_sum(p, M, N, SPREAD)
        for at in tl.range(near, high, N):
            p = _inside(
                q, k_in, lse, batch, kv_head, at, own, n_keys, k_b, k_h, k_n, mult, inner, cap,
                window, M, N, WIDTH, BLOCK_D, TMA, SOFTCAP, WINDOW, PRECISION,
            )  # fmt: skip
            close = own[:, None] - (at + within)[None, :] < width
            p = tl.where(close | (at + within + first_key < sink)[None, :], p, 0.0)
            total += fold_sum(p, M, N, SPREAD)
    tl.store(out + place, tl.sum(total, 1), mask=held)
