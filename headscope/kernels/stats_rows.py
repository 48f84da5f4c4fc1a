"""The pass over rows: one program for M queries of one head, keys in tiles of N.

Everything is a running sum over keys with weights p = 2^(y), y the logit less the largest one so
far. What is linear in p for sets of keys is one more product, p times a table of 0 and 1.
"""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from headscope.kernels.logits import capped, load_tile
from headscope.kernels.stats_tiles import fold_max, fold_sum, seen_pairs


@triton.jit
def _on_sets(p, table):
    """p times a table, with p in two parts: one alone would keep three digits."""
    # The upper half of its bits is a bfloat16 as it stands; rounding would take an instruction
    # that is as slow as an exponential.
    high = (p.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
    low = (p - high).to(table.dtype)
    high = high.to(table.dtype)
    return tl.dot(low, table, tl.dot(high, table))


@triton.jit
def _span(
    top, total, entropy, distance, near, code, sets, q, k_in, table, mixed, batch, kv_head,
    start, stop, first, n_keys, k_b, k_h, k_n, mult, inner, cap, window, clip,
    M: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
    TMA: tl.constexpr, SPREAD: tl.constexpr, SOFTCAP: tl.constexpr, WINDOW: tl.constexpr,
    STATS: tl.constexpr, TOP: tl.constexpr, CLIP: tl.constexpr, SETS: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The tiles from key `start` to `stop`; where they are MASKED, pairs are looked at one by one.

    `first` is the index of the first row's own key. Without MASKED, every row sees every key and
    is at least `clip` tokens behind it.
    """
    within = tl.arange(0, N)
    own = first + tl.arange(0, M)
    for at in tl.range(start, stop, N):
        k = load_tile(
            k_in, batch, kv_head, at, n_keys, k_b, k_h, k_n, N, WIDTH, BLOCK_D, TMA, MASKED
        )
        s = capped(tl.dot(q, k.T, input_precision=PRECISION), inner, cap, SOFTCAP)
        if MASKED:
            seen = seen_pairs(own, at + within, n_keys, window, WINDOW)
            s = tl.where(seen, s, float("-inf"))
        some = fold_max(s, M, N, SPREAD)
        highest = tl.max(some, 1)
        if TOP:
            # Which of the SPREAD classes of columns hold the largest logit: the key itself is
            # looked up afterwards among them.
            bit = 1 << tl.arange(0, SPREAD)
            classes = tl.sum(tl.where(some == highest[:, None], bit[None, :], 0), 1)
            code = tl.where(highest > top, (at // N) * 256 + classes, code)
        higher = tl.maximum(top, highest)
        shift = (top - higher) * mult
        shrink = tl.exp2(shift)[:, None]
        y = s * mult - (higher * mult)[:, None]
        p = tl.exp2(y)
        part = fold_sum(p, M, N, SPREAD)
        if STATS:
            if MASKED:
                y = tl.maximum(y, -1000.0)  # 0 times -inf is no number
            entropy = (entropy + total * shift[:, None]) * shrink + fold_sum(p * y, M, N, SPREAD)
            # Counted from the tile, so that no small distance is the difference of large numbers.
            place = fold_sum(p * within.to(tl.float32)[None, :], M, N, SPREAD)
            distance = distance * shrink + (part * (first - at).to(tl.float32) - place)
            if CLIP:
                if MASKED:
                    behind = tl.minimum(own[:, None] - (at + within)[None, :], clip)
                    cut = fold_sum(p * behind.to(tl.float32), M, N, SPREAD)
                else:
                    cut = part * clip.to(tl.float32)
                near = near * shrink + cut
        if SETS > 0:
            column = tl.arange(0, 16)
            rows = table + 16 * at
            # SETS 1 multiplies every tile; 2 only those with keys that differ in their sets.
            if SETS == 1:
                of_keys = tl.load(rows + within[:, None] * 16 + column[None, :])
                sets = sets * shrink + _on_sets(p, of_keys)
            else:
                if tl.load(mixed + at // N) != 0:
                    of_keys = tl.load(rows + within[:, None] * 16 + column[None, :])
                    sets = sets * shrink + _on_sets(p, of_keys)
                else:
                    of_tile = tl.load(rows + column).to(tl.float32)
                    sets = sets * shrink + tl.sum(part, 1)[:, None] * of_tile[None, :]
        total = total * shrink + part
        top = higher
    return top, total, entropy, distance, near, code, sets


@triton.jit(do_not_specialize=["n_queries", "n_keys", "ahead", "window", "clip", "n_sets"])
def rows_kernel(
    q_in, k_in, sinks, table, mixed, lse_out, entropy_out, distance_out, near_out, code_out,
    sets_out, n_queries, n_keys, ahead, window, clip, n_sets, mult, inner, cap,
    q_b, q_h, q_n, k_b, k_h, k_n, t_b, t_h, m_b, m_h,
    HEADS: tl.constexpr, GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, SPREAD: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, STATS: tl.constexpr,
    TOP: tl.constexpr, CLIP: tl.constexpr, SETS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Row statistics of M queries; outputs are [batch * head, query], `sets` [set, .., query]."""
    # The longest rows first: what is left at the end is short.
    q0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    of_head = tl.program_id(1)
    batch, head = of_head // HEADS, of_head % HEADS
    kv_head = head // GROUP
    q = load_tile(q_in, batch, head, q0, n_queries, q_b, q_h, q_n, M, WIDTH, BLOCK_D, TMA, True)
    if SETS > 0:
        table += batch.to(tl.int64) * t_b + head.to(tl.int64) * t_h
        mixed += batch.to(tl.int64) * m_b + head.to(tl.int64) * m_h

    first = q0 + ahead
    low = 0
    if WINDOW:
        low = tl.maximum(first - window + 1, 0) // N * N
    high = tl.maximum(tl.minimum(n_keys, tl.minimum(q0 + M, n_queries) + ahead), low)
    whole = low
    if WINDOW:
        whole = (tl.maximum(first + M - window, 0) + N - 1) // N * N
        whole = tl.minimum(whole, (high + N - 1) // N * N)
    edge = tl.maximum(tl.minimum(first + 1 - (clip if CLIP else 0), n_keys), 0) // N * N
    edge = tl.maximum(edge, whole)

    top = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M, SPREAD), tl.float32)
    entropy, distance, near = total, total, total
    code = tl.full((M,), -1, tl.int32)
    sets = tl.zeros((M, 16), tl.float32)
    if WINDOW:
        top, total, entropy, distance, near, code, sets = _span(
            top, total, entropy, distance, near, code, sets, q, k_in, table, mixed, batch, kv_head,
            low, tl.minimum(whole, high), first, n_keys, k_b, k_h, k_n, mult, inner, cap, window,
            clip, M, N, WIDTH, BLOCK_D, TMA, SPREAD, SOFTCAP, WINDOW, STATS, TOP, CLIP, SETS,
            PRECISION, True,
        )  # fmt: skip
    top, total, entropy, distance, near, code, sets = _span(
        top, total, entropy, distance, near, code, sets, q, k_in, table, mixed, batch, kv_head,
        whole, edge, first, n_keys, k_b, k_h, k_n, mult, inner, cap, window, clip,
        M, N, WIDTH, BLOCK_D, TMA, SPREAD, SOFTCAP, WINDOW, STATS, TOP, CLIP, SETS, PRECISION,
        False,
    )  # fmt: skip
    top, total, entropy, distance, near, code, sets = _span(
        top, total, entropy, distance, near, code, sets, q, k_in, table, mixed, batch, kv_head,
        edge, high, first, n_keys, k_b, k_h, k_n, mult, inner, cap, window, clip,
        M, N, WIDTH, BLOCK_D, TMA, SPREAD, SOFTCAP, WINDOW, STATS, TOP, CLIP, SETS, PRECISION,
        True,
    )  # fmt: skip

    LN2: tl.constexpr = 0.6931471805599453
    row = q0 + tl.arange(0, M)
    held = row < n_queries
    at = of_head.to(tl.int64) * n_queries + row
    sum_p = tl.sum(total, 1)
    any_key = sum_p > 0
    # All counted from the largest logit, in powers of two.
    of_keys = tl.log2(tl.where(any_key, sum_p, 1.0))
    of_all = of_keys
    if SINKS:
        sink = tl.load(sinks + head) / LN2 - top * mult
        larger = tl.maximum(of_keys, sink)
        of_all = larger + tl.log2(tl.exp2(of_keys - larger) + tl.exp2(sink - larger))
    share = tl.where(any_key, tl.exp2(of_keys - of_all), 0.0)
    norm = share / tl.where(any_key, sum_p, 1.0)
    lse = tl.where(any_key, (top * mult + of_all) * LN2, float("-inf"))
    if SINKS:
        lse = tl.where(any_key, lse, tl.load(sinks + head))
    tl.store(lse_out + at, lse, mask=held)
    if STATS:
        nats = share * of_all - tl.sum(entropy, 1) * norm
        if SINKS:
            surprise = of_all - sink
            nats = tl.where(any_key, nats + tl.exp2(-surprise) * surprise, 0.0)
        tl.store(entropy_out + at, nats * LN2, mask=held)
        rest = tl.arange(0, M).to(tl.float32) * sum_p
        tl.store(distance_out + at, (tl.sum(distance, 1) + rest) * norm, mask=held)
        if CLIP:
            tl.store(near_out + at, tl.sum(near, 1) * norm, mask=held)
    if TOP:
        tl.store(code_out + at, code, mask=held)
    if SETS > 0:
        column = tl.arange(0, 16)
        step = tl.num_programs(1).to(tl.int64) * n_queries
        places = sets_out + column[None, :] * step + at[:, None]
        tl.store(places, sets * norm[:, None], mask=held[:, None] & (column < n_sets)[None, :])
