"""Means of blocks of positions, read once as they are stored and added up in float32."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from headscope.kernels.choice import on_its_device

_CHUNK = 64  # tokens that a program reads at a time


@triton.jit(do_not_specialize=["n", "block", "first", "offset"])
def _average(
    x, out, heads, n, block, first, offset, stride_b, stride_h, stride_n,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program for one block of one head."""
    row, of_head = tl.program_id(0), tl.program_id(1)
    wide, token = tl.arange(0, BLOCK_D), tl.arange(0, CHUNK)
    mine = (
        x + (of_head // heads).to(tl.int64) * stride_b + (of_head % heads).to(tl.int64) * stride_h
    )
    start = (first + row) * block - offset
    low, high = tl.maximum(start, 0), tl.minimum(start + block, n)
    total = tl.zeros([BLOCK_D], tl.float32)
    for at in range(low, high, CHUNK):
        index = at + token
        held = (index < high)[:, None] & (wide < WIDTH)[None, :]
        tile = tl.load(
            mine + index[:, None].to(tl.int64) * stride_n + wide[None, :], mask=held, other=0.0
        )
        total += tl.sum(tile.to(tl.float32), 0)
    count = tl.maximum(high - low, 1).to(tl.float32)
    at = (of_head.to(tl.int64) * tl.num_programs(0) + row) * WIDTH + wide
    tl.store(out + at, total / count, mask=wide < WIDTH)


@on_its_device
def block_means(
    x: Float[Tensor, "batch head token d"], block: int, first: int, rows: int, offset: int
) -> Float[Tensor, "batch head row d"]:
    """The mean of each block of positions, 0 where it has no token.

    Args:
        x: something of tokens at positions from `offset` on, without gaps.
        block: tokens of a block.
        first: the block that the answer begins with.
        rows: how many there are.
    """
    batch, heads, n, width = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = torch.empty(batch, heads, rows, width, dtype=torch.float32, device=x.device)
    if out.numel():
        launch: Any = _average[(rows, batch * heads)]
        launch(
            x, out, heads, n, block, first, offset, *x.stride()[:3], WIDTH=width,
            BLOCK_D=triton.next_power_of_2(width), CHUNK=_CHUNK,
        )  # fmt: skip
    return out
