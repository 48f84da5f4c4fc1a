"""Squares of blocks from what is chosen of their distances."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Bool
from torch import Tensor

from headscope.kernels.choice import on_its_device

_CHUNK = 1024


@triton.jit(do_not_specialize=["n", "first"])
def _lay(back, out, n, first, CHUNK: tl.constexpr):
    row, of_head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    mine = out + (of_head * tl.num_programs(0) + row) * n
    for start in range(0, n, CHUNK):
        j = start + tl.arange(0, CHUNK)
        apart = first + row - j
        inside = (j < n) & (apart >= 0) & (apart < n)
        tl.store(mine + j, tl.load(back + of_head * n + apart, mask=inside, other=0), mask=j < n)


@on_its_device
def at_distances(
    back: Bool[Tensor, "batch head distance"], rows: int, first: int
) -> Bool[Tensor, "batch head row column"]:
    """Whether the distance of each row's own column to each column is chosen.

    Args:
        back: by the number of columns gone back; there are as many columns.
        first: the column that belongs to the first row.
    """
    batch, heads, n = back.shape
    out = torch.empty(batch, heads, rows, n, dtype=torch.bool, device=back.device)
    if out.numel():
        launch: Any = _lay[(rows, batch * heads)]
        flags = back.contiguous().view(torch.uint8)
        launch(flags, out.view(torch.uint8), n, first, CHUNK=_CHUNK)
    return out
