"""What kernels read of keys that were chosen: lists of 64-key tiles and of single keys.

Nothing asks the device for a number, so that lists are built while earlier work still runs.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.kernels.choice import on_its_device

TILE = 64
_CHUNK = 1024  # flags that a program packs at a time


_LENGTHS = ["n_columns", "first", "capacity", "stride_b", "stride_h", "stride_i"]


@triton.jit(do_not_specialize=_LENGTHS)
def _pack_blocks(
    blocks, tiles, counts, n_columns, first, capacity, stride_b, stride_h, stride_i,
    PER: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program for one row: the place of a block is how many are chosen before it."""
    i, h, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = (b.to(tl.int64) * tl.num_programs(1) + h) * tl.num_programs(0) + i
    mine = (
        blocks + b.to(tl.int64) * stride_b + h.to(tl.int64) * stride_h + i.to(tl.int64) * stride_i
    )
    out = tiles + row * capacity
    own = tl.minimum(first + i, n_columns)
    found = tl.full([], 0, tl.int32)
    for start in range(0, own, CHUNK):
        j = start + tl.arange(0, CHUNK)
        flag = tl.load(mine + j, mask=j < own, other=0).to(tl.int32)
        place = found + tl.cumsum(flag, 0) - flag
        for part in range(PER):
            at = place * PER + part
            tile = (j * PER + part).to(tiles.dtype.element_ty)
            tl.store(out + at, tile, mask=(flag != 0) & (at < capacity))
        found += tl.sum(flag, 0)
    tl.store(counts + row, tl.minimum(found * PER, capacity))


@triton.jit
def _flags(columns, row, n, first, TILES: tl.constexpr):
    """What is chosen of some tiles: [tile, 64] and the tiles; positions outside are not."""
    tile = tl.program_id(0) * TILES + tl.arange(0, TILES)
    key = tile[:, None] * 64 + tl.arange(0, 64)[None, :] - first
    inside = (key >= 0) & (key < n)
    return tl.load(columns + row.to(tl.int64) * n + key, mask=inside, other=0), tile


@triton.jit(do_not_specialize=["n", "first", "n_tiles"])
def _pack_bits(columns, bits, before, n, first, n_tiles, TILES: tl.constexpr):
    """The bits of some tiles, and how many of each are set, where `before` has the next tile."""
    row = tl.program_id(1)
    flag, tile = _flags(columns, row, n, first, TILES)
    word = tl.sum(flag.to(tl.int64) << tl.arange(0, 64)[None, :].to(tl.int64), 1)
    tl.store(bits + row.to(tl.int64) * n_tiles + tile, word, mask=tile < n_tiles)
    count = tl.sum(flag.to(tl.int32), 1)
    tl.store(before + row.to(tl.int64) * (n_tiles + 1) + tile + 1, count, mask=tile < n_tiles)


@triton.jit(do_not_specialize=["n_tiles"])
def _add_up(before, n_tiles, CHUNK: tl.constexpr):
    """From the number in each tile to the number up to it, in place."""
    mine = before + tl.program_id(0).to(tl.int64) * (n_tiles + 1) + 1
    found = tl.full([], 0, tl.int32)
    for start in range(0, n_tiles, CHUNK):
        tile = start + tl.arange(0, CHUNK)
        count = tl.load(mine + tile, mask=tile < n_tiles, other=0)
        tl.store(mine + tile, found + tl.cumsum(count, 0), mask=tile < n_tiles)
        found += tl.sum(count, 0)


@triton.jit(do_not_specialize=["n", "first", "n_tiles"])
def _pack_columns(columns, index, before, n, first, n_tiles, TILES: tl.constexpr):
    """The positions that are chosen in some tiles, behind those of earlier tiles."""
    row = tl.program_id(1)
    flag, tile = _flags(columns, row, n, first, TILES)
    flag = flag.to(tl.int32)
    base = tl.load(before + row.to(tl.int64) * (n_tiles + 1) + tile, mask=tile < n_tiles, other=0)
    at = base[:, None] + tl.cumsum(flag, 1) - flag
    position = tile[:, None] * 64 + tl.arange(0, 64)[None, :]
    tl.store(index + row.to(tl.int64) * n + at, position, mask=flag != 0)


@dataclass(frozen=True, eq=False)
class BlockLists:
    """The tiles of whole blocks that each block of queries sees before its own.

    Attributes:
        tiles: ascending; tile t holds the positions from 64 t on. What stands behind a row's count
            is undefined.
        counts: tiles of each row.
    """

    tiles: Int[Tensor, "batch head query_block most"]
    counts: Int[Tensor, "batch head query_block"]


@dataclass(frozen=True, eq=False)
class ColumnLists:
    """Single keys by their positions.

    Attributes:
        index: ascending positions of the keys; what stands behind a head's count is undefined.
        before: how many of them lie before position 64 t, for each tile t and for all of them.
        bits: bit c of tile t is set where position 64 t + c is chosen.
    """

    index: Int[Tensor, "batch head key"]
    before: Int[Tensor, "batch head tile_border"]
    bits: Int[Tensor, "batch head tile"]


@on_its_device
def block_lists(
    blocks: Bool[Tensor, "batch head query_block key_block"],
    block: int,
    first_block: int,
    most: int | None = None,
) -> BlockLists:
    """Pack what is seen of the blocks before each row's own; the own block is left out.

    Args:
        blocks: as in `Selection`.
        block: tokens of a block, a multiple of 64.
        first_block: the block of queries that the rows begin with.
        most: no row sees more blocks than this; keeps the lists short. What a row sees beyond
            it is lost.

    Raises:
        HeadscopeError: blocks cannot be cut into tiles.
    """
    if block % TILE:
        raise HeadscopeError(f"Lists are of tiles of {TILE} keys; blocks of {block} do not fit.")
    batch, heads, rows, columns = blocks.shape
    per = block // TILE
    capacity = max(columns if most is None else min(most, columns), 1) * per
    flags = blocks if blocks.stride(-1) == 1 else blocks.contiguous()
    dtype = torch.int16 if columns * per < 2**15 else torch.int32
    tiles = torch.empty(batch, heads, rows, capacity, dtype=dtype, device=blocks.device)
    counts = torch.zeros(batch, heads, rows, dtype=torch.int32, device=blocks.device)
    if blocks.numel():
        pack: Any = _pack_blocks[(rows, heads, batch)]
        pack(
            flags.view(torch.uint8), tiles, counts, columns, first_block, capacity,
            *flags.stride()[:3], PER=per, CHUNK=_CHUNK,
        )  # fmt: skip
    return BlockLists(tiles, counts)


@on_its_device
def column_lists(columns: Bool[Tensor, "batch head key"], first: int = 0) -> ColumnLists:
    """Pack the positions of chosen keys.

    Args:
        columns: by index, as in `Selection`.
        first: the position of the first key.
    """
    batch, heads, n = columns.shape
    flags, device = columns.contiguous(), columns.device
    n_tiles = -(-(first + n) // TILE)
    index = torch.empty(batch, heads, n, dtype=torch.int32, device=device)
    before = torch.zeros(batch, heads, n_tiles + 1, dtype=torch.int32, device=device)
    bits = torch.empty(batch, heads, n_tiles, dtype=torch.int64, device=device)
    if columns.numel():
        at_once = _CHUNK // TILE
        grid, rows = (triton.cdiv(n_tiles, at_once), batch * heads), (batch * heads,)
        pack_bits: Any = _pack_bits[grid]
        add_up: Any = _add_up[rows]
        pack: Any = _pack_columns[grid]
        flags = flags.view(torch.uint8)
        pack_bits(flags, bits, before, n, first, n_tiles, TILES=at_once)
        add_up(before, n_tiles, CHUNK=_CHUNK)
        pack(flags, index, before, n, first, n_tiles, TILES=at_once)
    else:
        bits.zero_()
    return ColumnLists(index, before, bits)
