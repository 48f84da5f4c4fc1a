"""Keys that were chosen by content, as the prefill kernel reads them: addresses in one table."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.kernels.lists import block_lists, column_lists
from headscope.kernels.tiles import TILE
from headscope.patterns.selection import Selection

# One row of the table: addresses of the blocks, lists, counts and columns; heads; tokens of a
# block, the first block of queries, blocks of queries and of keys, room of a list; tiles of
# columns; addresses of what lies before a tile and of its bits; room of the columns.
WORDS = 14


@dataclass(frozen=True, eq=False)
class Chosen:
    """Selections on a device.

    Attributes:
        table: a row of addresses and sizes for each.
        columns: whether some of them name single keys.
        held: the tensors behind the addresses, which live as long as this does.
    """

    table: Int[Tensor, "selection 14"]
    columns: bool
    held: tuple[Tensor, ...]


def takes(selection: Selection) -> bool:
    """Whether the kernel reads a selection as it is: whole tiles, which 16 bits count, and columns
    that are the same for every row."""
    if selection.ranges is not None or selection.blocks is None or selection.block % TILE:
        return False
    return selection.blocks.shape[3] * (selection.block // TILE) < 2**15


def table_of(selections: Sequence[Selection], shift: int, device: torch.device) -> Chosen:
    """Lists of the tiles and columns that selections hold, without asking the device.

    Args:
        shift: from the index of a key to its position.
    """
    rows: list[list[int]] = []
    held: list[Tensor] = []
    for selection in selections:
        assert selection.blocks is not None
        blocks = selection.blocks.contiguous()
        lists = block_lists(blocks, selection.block, selection.first_block, selection.most)
        of = [blocks, lists.tiles, lists.counts]
        heads, n_rows, n_blocks = blocks.shape[1:]
        places = [0, 0, 0]
        n_tiles = room = 0
        if selection.columns is not None:
            found = column_lists(selection.columns, shift)
            of += [found.index, found.before, found.bits]
            places = [x.data_ptr() for x in (found.index, found.before, found.bits)]
            n_tiles, room = found.bits.shape[-1], found.index.shape[-1]
        held += of
        sizes = [selection.block, selection.first_block, n_rows, n_blocks, lists.tiles.shape[-1]]
        first = (x.data_ptr() for x in of[:3])
        rows.append([*first, places[0], heads, *sizes, n_tiles, *places[1:], room])
    table = torch.tensor(rows, dtype=torch.int64)
    if device.type == "cuda":
        table = table.pin_memory()
    columns = any(selection.columns is not None for selection in selections)
    return Chosen(table.to(device, non_blocking=True), columns, tuple(held))
