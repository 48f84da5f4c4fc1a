"""A pattern cut into tiles: which squares of 64 × 64 tokens its rows see as a whole, and in part.

Tiles lie on a grid of positions, so that a chunk of a prompt is cut as the whole prompt is. What is
seen in part becomes 64 words of 64 bits; the same square of bits stands anywhere in a pattern again
and again, so that there are few different ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.streaming import Streaming

TILE = 64
_AT_ONCE = 2**12  # tiles whose pairs are evaluated together
_ENTRIES = 2**24  # entries of a table of tiles that are looked up together

Seen = Callable[[Int[Tensor, "tile row 1"], Int[Tensor, "tile 1 column"]], Bool[Tensor, "..."]]


@dataclass(frozen=True)
class Span:
    """The positions of a sequence's queries, and of the keys that are held.

    Attributes:
        first, queries: of the first query, and how many there are.
        lowest, keys: of the first key, and how many there are.
    """

    first: int
    queries: int
    lowest: int
    keys: int

    @property
    def tiles(self) -> range:
        """The tiles of queries."""
        return range(self.first // TILE, (self.first + self.queries - 1) // TILE + 1)


@dataclass(frozen=True)
class Reach:
    """What a layer hides by positions, whatever a pattern says.

    Attributes:
        window: a key is seen while query - key is below it.
        chunk: a key is seen from its own chunk of this many tokens.
    """

    window: int | None = None
    chunk: int | None = None

    def mask(self, query: Tensor, key: Tensor) -> Tensor:
        """Causality among them."""
        seen = key <= query
        if self.window is not None:
            seen = seen & (query - key < self.window)
        if self.chunk is not None:
            seen = seen & (query // self.chunk == key // self.chunk)
        return seen


@dataclass(frozen=True, eq=False)
class Tiling:
    """The tiles of one pattern, one row of numbers for each tile of queries.

    Attributes:
        runs: (start, length) of two runs of key tiles that are seen as a whole.
        whole: further ones, all rows one after the other.
        partly: key tiles that are seen in part, likewise.
        bits: which of `masks` each of these is.
        masks: the different squares of bits, a word for each row, bit c for its column c.
        n_whole, n_partly: how many each row has.
    """

    runs: Int[Tensor, "tile 4"]
    whole: Int[Tensor, " whole"]
    partly: Int[Tensor, " partly"]
    bits: Int[Tensor, " partly"]
    masks: Int[Tensor, "mask 64"]
    n_whole: Int[Tensor, " tile"]
    n_partly: Int[Tensor, " tile"]

    @property
    def cost(self) -> Int[Tensor, " tile"]:
        """Key tiles that each row computes."""
        return self.runs[:, 1] + self.runs[:, 3] + self.n_whole + self.n_partly


def tiling(pattern: Pattern, span: Span, reach: Reach, device: torch.device) -> Tiling:
    """The tiles of a pattern, causality and the layer's own reach included.

    Of a pattern that repeats itself a few columns of tiles are evaluated; of others, such as a
    window that grows, all pairs of tokens. What was cut before is kept.
    """
    if reach.window is not None and reach.chunk is None and isinstance(pattern, Full):
        pattern, reach = Streaming(0, reach.window), Reach()
    return _tiling(pattern, span, reach, device)


def forget() -> None:
    """Drop what was cut before, so that cutting can be timed."""
    _tiling.cache_clear()


@lru_cache(maxsize=64)
def _tiling(pattern: Pattern, span: Span, reach: Reach, device: torch.device) -> Tiling:
    def seen(query: Tensor, key: Tensor) -> Tensor:
        return pattern.mask(query, key) & reach.mask(query, key)

    plain = reach == Reach()
    if plain and isinstance(pattern, Full):
        return _by_arithmetic(Streaming(0, span.first + span.queries), span, seen, device)
    if plain and isinstance(pattern, Streaming) and not pattern.growth:
        return _by_arithmetic(pattern, span, seen, device)
    repeats = pattern.repeats()
    if repeats is not None and reach.chunk is not None:
        repeats = math.lcm(repeats[0], reach.chunk), repeats[1]
    return by_pairs(seen, span, device, repeats)


def _by_arithmetic(pattern: Streaming, span: Span, seen: Seen, device: torch.device) -> Tiling:
    row = torch.arange(span.tiles.start, span.tiles.stop, device=device)
    top = (row * TILE).clamp(min=span.first)
    bottom = (row * TILE + TILE - 1).clamp(max=span.first + span.queries - 1)
    low = -(-span.lowest // TILE)  # the first tile whose keys are all held
    # Keys that every row sees: up to the first row, from the last row's window on; and the sink.
    stop = (top + 1).div(TILE, rounding_mode="floor")
    sink = stop.clamp(max=pattern.sink // TILE)
    near = (bottom - pattern.window + 1).clamp(min=0)
    start = (-(-near // TILE)).clamp(min=low)
    start = torch.maximum(start, sink)
    first = torch.full_like(row, low)
    runs = torch.stack((first, (sink - low).clamp(min=0), start, (stop - start).clamp(min=0)), 1)
    # Around the ends of the runs lie the tiles of which some pairs are seen.
    far = (top - pattern.window + 1).clamp(min=0) // TILE
    edges = [torch.full_like(row, span.lowest // TILE), torch.full_like(row, pattern.sink // TILE)]
    edges += [far, far + 1, start - 1, row - 1, row]
    tiles = torch.stack(edges, 1).clamp(min=0).sort(1).values
    fresh = tiles.diff(dim=1, prepend=torch.full_like(tiles[:, :1], -1)) > 0
    after = [runs[:, i : i + 1] + runs[:, i + 1 : i + 2] for i in (0, 2)]
    for i, stop_at in zip((0, 2), after, strict=True):
        fresh &= ~((tiles >= runs[:, i : i + 1]) & (tiles < stop_at))
    fresh &= tiles <= row[:, None]
    place, column = fresh.nonzero(as_tuple=True)
    keys = tiles[place, column]
    words, counts = _words(seen, row[place], keys, span)
    some = counts > 0
    masks, bits = words[some].unique(dim=0, return_inverse=True)
    return Tiling(
        runs=runs.int(),
        whole=keys[:0].int(),
        partly=keys[some].int(),
        bits=bits.int(),
        masks=masks,
        n_whole=torch.zeros_like(row).int(),
        n_partly=torch.bincount(place[some], minlength=len(row)).int(),
    )


def by_pairs(
    seen: Seen, span: Span, device: torch.device, repeats: tuple[int, int] | None = None
) -> Tiling:
    """The tiles of anything that can be asked about pairs of positions.

    Args:
        repeats: (step, after): whether a pair is seen does not change where both positions grow
            by `step`, of keys from `after` on. Where it is left out every pair is asked about.
    """
    low, stop = span.lowest // TILE, span.tiles.stop
    stop_key = min(stop, (span.lowest + span.keys - 1) // TILE + 1)
    step, settled = stop - low, stop_key
    if repeats is not None:
        step = math.lcm(repeats[0], TILE) // TILE
        settled = max(-(-repeats[1] // TILE), -(-span.lowest // TILE))
    asked = torch.arange(low, max(low + 1, min(settled + step, stop_key)), device=device)
    kinds, masks = _kinds(seen, torch.arange(low, stop, device=device), asked, span)
    rows = torch.arange(span.tiles.start, stop, device=device)
    columns = torch.arange(low, stop_key, device=device)
    whole, partly, bits, n_whole, n_partly = [], [], [], [], []
    for some in rows.split(max(1, _ENTRIES // max(1, len(columns)))):
        back = (columns - settled).clamp(min=0) // step * step
        row = (some[:, None] - back - low).clamp(min=0)
        kind = kinds[row, columns - back - low]
        kind = kind.masked_fill(columns > some[:, None], 0)
        for tiles, counts, found in ((whole, n_whole, kind == 1), (partly, n_partly, kind > 1)):
            tiles.append(found.nonzero()[:, 1] + low)
            counts.append(found.sum(1))
        bits.append(kind[kind > 1] - 2)
    return Tiling(
        runs=torch.zeros(len(rows), 4, dtype=torch.int32, device=device),
        whole=torch.cat(whole).int(),
        partly=torch.cat(partly).int(),
        bits=torch.cat(bits).int(),
        masks=masks,
        n_whole=torch.cat(n_whole).int(),
        n_partly=torch.cat(n_partly).int(),
    )


def _kinds(
    seen: Seen, rows: Int[Tensor, " row"], columns: Int[Tensor, " column"], span: Span
) -> tuple[Int[Tensor, "row column"], Int[Tensor, "mask 64"]]:
    """What each tile is: 0 not seen, 1 seen as a whole, 2 + the number of its square of bits."""
    kinds, squares = [], []
    for some in rows.split(max(1, _AT_ONCE // len(columns))):
        row, column = torch.cartesian_prod(some, columns).reshape(-1, 2).unbind(1)
        words, counts = _words(seen, row, column, span)
        kinds.append(torch.where(counts == TILE * TILE, 1, torch.where(counts > 0, 2, 0)))
        squares.append(words[kinds[-1] == 2].unique(dim=0, return_inverse=True))
    # Of a few tiles at a time: all of their bits at once would not fit.
    masks, again = torch.cat([masks for masks, _ in squares]).unique(dim=0, return_inverse=True)
    places = again.split([len(masks) for masks, _ in squares])
    bits = torch.cat([place[of] for place, (_, of) in zip(places, squares, strict=True)])
    kind = torch.cat(kinds)
    kind = kind.masked_scatter(kind == 2, 2 + bits)
    return kind.reshape(len(rows), len(columns)), masks


def _words(
    seen: Seen, rows: Int[Tensor, " tile"], columns: Int[Tensor, " tile"], span: Span
) -> tuple[Int[Tensor, "tile 64"], Int[Tensor, " tile"]]:
    """The bits of some tiles, and how many are set. Rows that hold no query have some too."""
    within = torch.arange(TILE, device=rows.device)
    words, counts = [rows.new_zeros(0, TILE)], [rows.new_zeros(0)]
    for row, column in zip(rows.split(_AT_ONCE), columns.split(_AT_ONCE), strict=True):
        query = (row[:, None] * TILE + within)[:, :, None]
        key = (column[:, None] * TILE + within)[:, None, :]
        held = (key >= span.lowest) & (key < span.lowest + span.keys)
        pairs = seen(query, key) & held
        words.append((pairs.long() << within).sum(2))
        counts.append(pairs.sum((1, 2)))
    return torch.cat(words), torch.cat(counts)
