"""What each program of the prefill kernel computes, longest first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.kernels.tiles import TILE, Reach, Span, Tiling, tiling
from headscope.patterns.base import Pattern

# In order: the sequence of the batch, the head, the tile of queries by position; what to add to a
# position for the index of a query, the queries of the sequence; the same of keys, and where they
# end; two runs of key tiles; where further ones stand and how many they are, whole and in part; the
# selection that chose the keys (-1: none) and which of its heads it is; the first few tiles that
# are seen in part once more, and the squares of bits that belong to them.
FIELDS = (
    "batch head tile query_base query_start query_stop key_base key_stop run_a n_a run_b n_b "
    "whole n_whole partly n_partly selection chosen_head "
    "near_0 near_1 near_2 near_3 mask_0 mask_1 mask_2 mask_3"
).split()
_NEAR = 4  # as many as the kernel chooses from
_SHORT = 2**15  # tiles that 16 bits count
# Tiles of a program on average, up to which one loop for those seen as a whole and in part was
# faster on an H100: by 10 to 15 % with 6, 1 % with 18, and 3 to 9 % slower from 64 on. With lists
# it was faster at any length.
_FEW = 32


@dataclass(frozen=True)
class Text:
    """Where one text lies in the tensors.

    Attributes:
        batch: the row of the batch.
        query, key: indices of its first query and its first key.
        span: their positions.
    """

    batch: int
    query: int
    key: int
    span: Span


@dataclass(frozen=True)
class Chooser:
    """Stands for a selection of keys by content: the tiles of its heads are known later.

    Attributes:
        selection: which of those that are handed to the kernel.
        head: which of its heads.
        block: tokens of its blocks.
    """

    selection: int
    head: int
    block: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Programs of one launch.

    Attributes:
        programs: a row of `FIELDS` for each, longest first.
        whole, partly, bits, masks: of all patterns one after the other, as in `Tiling`; tiles in 16
            bits where these count them.
        lists: whether some program has tiles in `whole`.
        more: whether some program has more tiles in `partly` than its row names.
        joined: whether one loop over all tiles of a program is faster than two.
        chosen: whether some program has keys that were chosen by content.
        rows: queries of a program, 64 or 128.
    """

    programs: Int[Tensor, "program field"]
    whole: Int[Tensor, " whole"]
    partly: Int[Tensor, " partly"]
    bits: Int[Tensor, " partly"]
    masks: Int[Tensor, "mask 64"]
    lists: bool
    more: bool
    joined: bool
    chosen: bool
    rows: int


Job = tuple[int, "Pattern | Chooser"]  # a head, and what it sees


@lru_cache(maxsize=64)
def plan(
    jobs: tuple[Job, ...], sequences: tuple[Text, ...], reach: Reach, device: torch.device
) -> Plan:
    """A plan for heads with patterns or choosers; it depends on positions alone and is kept.

    Args:
        jobs: (query head, what it sees), each head once.
        sequences: of the batch.
        reach: what the layer hides whatever a pattern says.
    """
    different = dict.fromkeys(
        (what, one.span) for one in sequences for _, what in jobs if isinstance(what, Pattern)
    )
    tilings = {key: tiling(*key, reach, device) for key in different}
    return assembled(
        [
            (head, one, tilings[what, one.span] if isinstance(what, Pattern) else what)
            for one in sequences
            for head, what in jobs
        ],
        device,
    )


def assembled(parts: Sequence[tuple[int, Text, Tiling | Chooser]], device: torch.device) -> Plan:
    """The plan of given tilings, each for one head of one sequence."""
    tilings = list(dict.fromkeys(what for _, _, what in parts if isinstance(what, Tiling)))
    sizes = {"whole": [0], "partly": [0], "masks": [0]}
    for one in tilings:
        for name, ends in sizes.items():
            ends.append(ends[-1] + len(getattr(one, name)))
    tables = {
        id(one): _of_tiling(one, *(sizes[name][i] for name in ("whole", "partly", "masks")))
        for i, one in enumerate(tilings)
    }
    # Twice the queries for each key that is fetched, where blocks of queries are large enough.
    tall = bool(parts) and all(
        isinstance(what, Chooser) and what.block % (2 * TILE) == 0 for _, _, what in parts
    )
    rows, costs = [], []
    for head, sequence, what in parts:
        found, cost = (
            tables[id(what)]
            if isinstance(what, Tiling)
            else _of_chooser(what, sequence, tall, device)
        )
        rows.append(_of_sequence(head, sequence, found, tall))
        costs.append(cost)
    none = torch.zeros(0, dtype=torch.int32, device=device)
    programs = torch.cat([none.reshape(0, len(FIELDS)), *rows])
    cost = torch.cat([none, *costs])
    order = _order(programs, cost)
    bits = [one.bits + first for one, first in zip(tilings, sizes["masks"], strict=False)]
    lists = sizes["whole"][-1] > 0
    most, mean = _asked(tilings, cost)
    # A loop that looks tiles up has more of them under way if what it reads is less than 32 bits:
    # else Triton fetches the numbers as it fetches the tiles, in a stage of their own.
    last = max((text.span.lowest + text.span.keys for _, text, _ in parts), default=0)
    size = torch.int16 if last <= _SHORT * TILE else torch.int32
    return Plan(
        programs=programs[order].contiguous(),
        whole=torch.cat([none, *(one.whole for one in tilings)]).to(size),
        partly=torch.cat([none, *(one.partly for one in tilings)]).to(size),
        bits=torch.cat([none, *bits]),
        masks=torch.cat([none.long().reshape(0, TILE), *(one.masks for one in tilings)]),
        lists=lists,
        more=most > _NEAR,
        joined=lists or mean <= _FEW,
        chosen=any(isinstance(what, Chooser) for _, _, what in parts),
        rows=2 * TILE if tall else TILE,
    )


def _asked(tilings: Sequence[Tiling], cost: Int[Tensor, " program"]) -> tuple[float, float]:
    """How many tiles a row sees in part at most, and tiles of a program on average, from the device
    at once; of choosers alone, nobody asks it and they count as long."""
    if not tilings:
        return 0.0, math.inf
    most = torch.stack([one.n_partly.max() for one in tilings]).max()
    found: list[float] = torch.stack((most.float(), cost.float().mean())).tolist()
    return found[0], found[1]


def _order(programs: Tensor, cost: Int[Tensor, " program"]) -> Int[Tensor, " program"]:
    """The longest first.

    Among programs of the same length those stand together that read the same keys: all heads of a
    tile of queries; of heads whose keys lie anywhere, one head after the other, so that what they
    read stays in the cache.
    """
    tile, scattered = programs[:, 2], programs[:, 16] >= 0
    place = torch.where(scattered, (programs[:, 1] + 1) * 2**32 - tile.long(), tile.long())
    order = torch.argsort(place, stable=True)
    return order[torch.argsort(cost[order], descending=True, stable=True)]


def _of_tiling(one: Tiling, whole: int, partly: int, masks: int) -> tuple[Tensor, Tensor]:
    """Runs, lists, selection and near tiles of each tile of queries, and what it costs."""
    first_whole, first_partly = (
        counts.cumsum(0) - counts for counts in (one.n_whole, one.n_partly)
    )
    none = torch.zeros_like(one.n_whole)
    lists = torch.stack(
        (first_whole + whole, one.n_whole, first_partly + partly, one.n_partly, none - 1, none), 1
    )
    rank = torch.arange(_NEAR, device=none.device)
    named = rank < one.n_partly[:, None]
    place = (first_partly[:, None] + rank).clamp(max=max(0, len(one.partly) - 1))
    near = [
        table[place].masked_fill(~named, 0) if len(table) else place
        for table in (one.partly, one.bits + masks)
    ]
    return torch.cat((one.runs, lists.int(), *(x.int() for x in near)), 1), one.cost


def _of_chooser(
    what: Chooser, text: Text, tall: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    tiles = _tiles(text.span, tall, device)
    numbers = torch.zeros(len(tiles), len(FIELDS) - 8, dtype=torch.int32, device=device)
    numbers[:, 8], numbers[:, 9] = what.selection, what.head
    # As if all of its tiles saw everything: how much it is, nobody asks the device.
    return numbers, torch.full_like(tiles, text.span.tiles.stop).int()


def _tiles(span: Span, tall: bool, device: torch.device) -> Int[Tensor, " tile"]:
    """The first tile of queries of each program."""
    step = 2 if tall else 1
    return torch.arange(span.tiles.start // step * step, span.tiles.stop, step, device=device)


def _of_sequence(head: int, one: Text, numbers: Int[Tensor, "tile 18"], tall: bool) -> Tensor:
    span = one.span
    place = [
        one.batch,
        head,
        0,
        one.query - span.first,
        one.query,
        one.query + span.queries,
        one.key - span.lowest,
        one.key + span.keys,
    ]
    device = numbers.device
    placed = torch.tensor(place, dtype=torch.int32).to(device).repeat(len(numbers), 1)
    placed[:, 2] = _tiles(span, tall, device)
    return torch.cat((placed, numbers), 1)
