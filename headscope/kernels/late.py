"""What a few last rows attend to, summed along columns and along diagonals.

A program holds a tile of the pattern in which rows and keys are as many. Turning each row by its
number lays a diagonal into one column, so that its sum needs no atomics: columns left of the turn
belong to one stretch of distances, those right of it to the next.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.kernels.choice import on_its_device

_KEYS = 2048  # that a program of the first pass goes through
_TILES = 8  # of the second


@triton.jit
def _logits(
    q, k, at, wide, row, n, past, stride_n, scale, softcap, WIDTH: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Logits of the rows with some keys, -inf where a key is later."""
    held = (at < n)[:, None] & (wide < WIDTH)[None, :]
    keys = tl.load(k + at[:, None].to(tl.int64) * stride_n + wide[None, :], mask=held, other=0.0)
    s = tl.dot(q, tl.trans(keys)) * scale
    if SOFTCAP:
        # tanh: 1 - 2 / (e^2x + 1) saturates where e^2x overflows.
        s = softcap * (1 - 2 / (tl.exp(2 * s / softcap) + 1))
    return tl.where((at < n)[None, :] & (at[None, :] <= past + row[:, None]), s, float("-inf"))


@triton.jit
def _queries(
    q, of_head, heads, row, wide, n_rows, stride_b, stride_h, stride_n, WIDTH: tl.constexpr
):
    mine = (
        q + (of_head // heads).to(tl.int64) * stride_b + (of_head % heads).to(tl.int64) * stride_h
    )
    held = (row < n_rows)[:, None] & (wide < WIDTH)[None, :]
    return tl.load(
        mine + row[:, None].to(tl.int64) * stride_n + wide[None, :], mask=held, other=0.0
    )


@triton.jit(do_not_specialize=["n_rows", "n"])
def _sums_of_rows(
    q, k, lse, n_rows, n, heads, group, q_b, q_h, q_n, k_b, k_h, k_n, scale, softcap,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    KEYS: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """The log of each row's sum of exponentials over some keys."""
    of_head, part = tl.program_id(0), tl.program_id(1)
    row, wide = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    queries = _queries(q, of_head, heads, row, wide, n_rows, q_b, q_h, q_n, WIDTH)
    mine = k + (of_head // heads).to(tl.int64) * k_b
    mine = mine + (of_head % heads // group).to(tl.int64) * k_h
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(part * KEYS, tl.minimum((part + 1) * KEYS, n), TILE):
        at = start + tl.arange(0, TILE)
        s = _logits(
            queries, mine, at, wide, row, n, n - n_rows, k_n, scale, softcap, WIDTH, SOFTCAP
        )
        higher = tl.maximum(top, tl.max(s, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(s - base[:, None]), 1)
        top = higher
    seen = total > 0
    found = tl.where(seen, top + tl.log(tl.where(seen, total, 1.0)), float("-inf"))
    tl.store(lse + (of_head.to(tl.int64) * tl.num_programs(1) + part) * ROWS + row, found)


@triton.jit(do_not_specialize=["n_rows", "n", "n_tiles"])
def _sums_of_lines(
    q, k, lse, columns, near, far, n_rows, n, n_tiles, heads, group, q_b, q_h, q_n, k_b, k_h, k_n,
    scale, softcap, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
    TILES: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Sums along the columns of some tiles, and along the two stretches of their diagonals."""
    of_head, part = tl.program_id(0), tl.program_id(1)
    row, wide = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    queries = _queries(q, of_head, heads, row, wide, n_rows, q_b, q_h, q_n, WIDTH)
    whole = tl.load(lse + of_head * ROWS + row)
    mine = k + (of_head // heads).to(tl.int64) * k_b
    mine = mine + (of_head % heads // group).to(tl.int64) * k_h
    turned = (row[:, None] - 1 - row[None, :]) & (ROWS - 1)
    behind = row[:, None] > row[None, :]
    for tile in range(part * TILES, tl.minimum((part + 1) * TILES, n_tiles)):
        at = tile * ROWS + row
        s = _logits(
            queries, mine, at, wide, row, n, n - n_rows, k_n, scale, softcap, WIDTH, SOFTCAP
        )
        p = tl.where((row < n_rows)[:, None], tl.exp(s - whole[:, None]), 0.0)
        tl.store(columns + of_head.to(tl.int64) * n + at, tl.sum(p, 0), mask=at < n)
        p = tl.gather(p, turned, 1)
        # Distances grow as keys go back, so that the last tile comes first.
        out = (of_head.to(tl.int64) * n_tiles + n_tiles - 1 - tile) * ROWS + row
        tl.store(near + out, tl.sum(tl.where(behind, 0.0, p), 0))
        tl.store(far + out, tl.sum(tl.where(behind, p, 0.0), 0))


@on_its_device
def late_lines(
    q: Float[Tensor, "batch head row d"],
    k: Float[Tensor, "batch kv_head key d"],
    scale: float,
    softcap: float | None = None,
    sink_logits: Float[Tensor, " head"] | None = None,
) -> tuple[Float[Tensor, "batch head key"], Float[Tensor, "batch head key"]]:
    """Attention of the last rows of a text, summed over them by key and by distance.

    Args:
        q: of the last 128 rows at most, 64 where heads are wider than 128; the last of them has
            the position of the last key.
        k: all keys up to there, without gaps.
        sink_logits: learned, join every softmax of their head.
    """
    batch, heads, n_rows, width = q.shape
    n, device = k.shape[2], q.device
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    rows = 64 if n_rows <= 64 else 128
    n_parts, n_tiles = -(-n // _KEYS), -(-n // rows)
    lse = torch.empty(batch, heads, n_parts, rows, dtype=torch.float32, device=device)
    columns = lse.new_empty(batch, heads, n)
    near, far = (lse.new_empty(batch, heads, n_tiles * rows) for _ in range(2))
    shape = (heads, heads // k.shape[1], *q.stride()[:3], *k.stride()[:3], scale, softcap or 1.0)
    compiled = {
        "WIDTH": width,
        "BLOCK_D": triton.next_power_of_2(width),
        "ROWS": rows,
        "SOFTCAP": softcap is not None,
        # Larger tiles fit into the shared memory of every GPU where none is fetched ahead.
        "num_warps": 4 if rows == 64 else 8,
        "num_stages": 3 if rows == 64 and width <= 128 else 1,
    }
    by_rows: Any = _sums_of_rows[(batch * heads, n_parts)]
    by_rows(q, k, lse, n_rows, n, *shape, **compiled, TILE=64, KEYS=_KEYS)
    whole = lse.logsumexp(2)
    if sink_logits is not None:
        whole = torch.logaddexp(whole, sink_logits[:, None].float())
    by_lines: Any = _sums_of_lines[(batch * heads, -(-n_tiles // _TILES))]
    by_lines(q, k, whole, columns, near, far, n_rows, n, n_tiles, *shape, **compiled, TILES=_TILES)
    # A stretch of the one and the next stretch of the other are about the same distances.
    diagonals = pad(near, (0, rows)) + pad(far, (rows, 0))
    first = n_tiles * rows - 1 - (n - n_rows)
    return columns, diagonals[..., first : first + n]
