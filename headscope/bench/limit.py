"""The tile limit: how much faster a mix could be if time went with the tiles that it computes."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.bench.squares import squares
from headscope.kernels.attending import Resolved, resolve
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule
from headscope.patterns.selection import Selection

SIDE = 128


def dense_tiles(n: int, side: int = SIDE) -> int:
    """Squares of `side` × `side` tokens that one head computes which sees everything."""
    count = -(-n // side)
    return count * (count + 1) // 2


def tile_limit(attention: Attention, rules: Sequence[Rule], side: int = SIDE) -> float:
    """Squares of a dense run of all heads / squares that the mix computes.

    A square counts where some row of it sees some key of it. Single columns count where their
    square does not: as many of them as a square is wide are one more square. Keys are chosen by
    content once for this.

    Args:
        attention: of a whole text, from its first token on.
        side: tokens; 128 for the limit that is quoted.
    """
    return limit_of(resolve(attention, rules), attention.n_keys, side, attention.q.device)


def limit_of(found: Resolved, n: int, side: int, device: torch.device) -> float:
    """The same of rules whose choices are known."""
    patterns: dict[Pattern, int] = {}
    chosen = [_of_selection(each, n, side) for each in found.selections]
    total = 0.0
    for sees in found.sees:
        if isinstance(sees, Pattern):
            if sees not in patterns:
                patterns[sees] = int(squares(sees, n, side, device)[0].sum())
            total += patterns[sees]
        else:
            number, head = sees
            total += chosen[number][head % len(chosen[number])]
    return len(found.sees) * dense_tiles(n, side) / total


def _of_selection(selection: Selection, n: int, side: int) -> list[float]:
    """Squares of each of its heads."""
    given = [x for x in (selection.blocks, selection.columns) if x is not None]
    device, heads = given[0].device, max(x.shape[1] for x in given)
    count = -(-n // side)
    causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    found = []
    for head in range(heads):
        touched = torch.zeros_like(causal)
        if selection.ranges is not None:
            touched |= squares(selection.ranges, n, side, device)[0]
        if selection.blocks is not None:
            blocks = selection.blocks[0, head % selection.blocks.shape[1]]
            touched |= _covered(blocks, selection.block, selection.first_block, count, side)
        touched &= causal
        extra = 0.0
        if selection.columns is not None:
            columns = selection.columns[0, head % selection.columns.shape[1]]
            extra = float((_counts(columns, count, side) * (causal & ~touched)).sum()) / side
        found.append(float(touched.sum()) + extra)
    return found


def _covered(
    blocks: Bool[Tensor, "query_block key_block"], block: int, first: int, count: int, side: int
) -> Bool[Tensor, "row column"]:
    """Squares that some chosen block reaches into."""
    n_rows, n_columns = blocks.shape
    sums = torch.zeros(n_rows + 1, n_columns + 1, dtype=torch.int64, device=blocks.device)
    sums[1:, 1:] = blocks.long().cumsum(0).cumsum(1)
    start = torch.arange(count, device=blocks.device) * side
    low, high = start // block, (start + side - 1) // block + 1
    top, bottom = ((x - first).clamp(0, n_rows)[:, None] for x in (low, high))
    left, right = (x.clamp(0, n_columns)[None] for x in (low, high))
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside > 0


def _counts(columns: Bool[Tensor, " key"], count: int, side: int) -> Float[Tensor, " column"]:
    """Chosen columns of each square."""
    padded = columns.new_zeros(count * side)
    padded[: len(columns)] = columns
    return padded.view(count, side).sum(1).double()
