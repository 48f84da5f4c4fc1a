"""The most attended key of each row, among the few columns that the pass over rows left over."""

# Pyright knows no constexpr.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from headscope.kernels.logits import capped


@triton.jit(do_not_specialize=["n_queries", "n_keys", "ahead", "window"])
def top_kernel(
    q_in, k_in, code_in, out, n_queries, n_keys, ahead, window, inner, cap,
    q_b, q_h, q_n, k_b, k_h, k_n, HEADS: tl.constexpr, GROUP: tl.constexpr, R: tl.constexpr,
    N: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, SPREAD: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """R queries of one head; of equal logits the earliest key counts."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    of_head = tl.program_id(1)
    batch, head = of_head // HEADS, of_head % HEADS
    at = of_head.to(tl.int64) * n_queries + row
    held = row < n_queries
    code = tl.load(code_in + at, mask=held, other=-1)
    pending = tl.where(code < 0, 0, code & 255)
    column = tl.arange(0, BLOCK_D)
    q_at = q_in + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    q_at = q_at + row[:, None].to(tl.int64) * q_n + column[None, :]
    inside = (column < WIDTH)[None, :]
    q = tl.load(q_at, mask=held[:, None] & inside, other=0.0).to(tl.float32)
    k_at = k_in + batch.to(tl.int64) * k_b + (head // GROUP).to(tl.int64) * k_h
    best = tl.full((R,), float("-inf"), tl.float32)
    found = tl.full((R,), -1, tl.int32)
    while tl.max(pending, 0) > 0:
        lowest = pending & -pending
        index = tl.zeros((R,), tl.int32)
        for power in tl.static_range(1, SPREAD):
            index += (lowest >= (1 << power)).to(tl.int32)
        keys = (
            (code >> 8)[:, None] * N + index[:, None] + SPREAD * tl.arange(0, N // SPREAD)[None, :]
        )
        behind = (row + ahead)[:, None] - keys
        seen = (pending > 0)[:, None] & (behind >= 0) & (keys < n_keys)
        if WINDOW:
            seen = seen & (behind < window)
        k = tl.load(
            k_at + keys[:, :, None].to(tl.int64) * k_n + column[None, None, :],
            mask=seen[:, :, None] & inside[:, None, :],
            other=0.0,
        )
        s = capped(tl.sum(k.to(tl.float32) * q[:, None, :], 2), inner, cap, SOFTCAP)
        s = tl.where(seen, s, float("-inf"))
        highest = tl.max(s, 1)
        key = tl.min(tl.where(s == highest[:, None], keys, 2147483647), 1)
        better = (pending > 0) & ((highest > best) | ((highest == best) & (key < found)))
        best, found = tl.where(better, highest, best), tl.where(better, key, found)
        pending = pending & (pending - 1)
    tl.store(out + at, found.to(tl.int64), mask=held)
