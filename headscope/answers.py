"""Statistics of a pattern that one pass over its blocks gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.blocks import (
    Tile,
    block_logits,
    blocks,
    budget,
    columns,
    edited_logits,
    finite,
    fold,
    inside,
    near,
    recomputed,
    tile,
    wide,
    wide_dtype,
)
from headscope.edits import Keys, as_indices, as_mask, key_mask
from headscope.errors import HeadscopeError
from headscope.kernels import statistics
from headscope.logs import Logs, block_width, pieces
from headscope.patterns.base import Pattern

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True, eq=False)
class RowStats:
    """What one pass over the rows measures; a row that sees no key is all zeros."""

    lse: Float[Tensor, "batch head query"]
    entropy: Float[Tensor, "batch head query"]  # nats, the learned sink counted as an outcome
    distance: Float[Tensor, "batch head query"]  # sum of p * (query - key), in tokens
    clipped_distance: Float[Tensor, "batch head query"]  # the same with distances cut at `clip`
    top_key: Int[Tensor, "batch head query"]  # index of the most attended key, -1 if there is none
    mass: dict[str, Float[Tensor, "batch head query"]]  # probability inside each named region


def lse(attention: "Attention") -> Float[Tensor, "batch head query"]:
    """See `Attention.lse`."""
    if statistics.take(attention):
        return statistics.lse(attention)
    return torch.cat(fold(attention, lambda part: part.lse), dim=2)


def mass(attention: "Attention", region: Keys, queries: Any) -> Float[Tensor, "batch head query"]:
    """See `Attention.mass`."""
    if statistics.take(attention, queries):
        found = statistics.mass(attention, region)
        if found is not None:
            return _rows(attention, found, queries)
    if isinstance(region, Pattern):
        return _mass_in_pattern(attention, region, queries)
    lse = finite(attention.lse())
    few = as_mask(attention, region).flatten(0, 1).any(0).nonzero()[:, 0]
    if 2 * len(few) > attention.n_keys:
        few = None  # causality leaves out half of the keys already

    def within(rows: Tensor, keys: slice | Tensor) -> Tensor:
        member = key_mask(attention, region, rows[:, None], columns(keys, rows)[None, :])
        logits = block_logits(attention, rows, keys).masked_fill(~member, -torch.inf)
        return torch.exp(logits - lse[:, :, rows, None]).sum(-1)

    found = [
        recomputed(attention, within, rows, keys if few is None else few)
        for rows, keys in blocks(attention, queries, n_keys=None if few is None else len(few))
    ]
    return torch.cat(found, dim=2)


def _mass_in_pattern(
    attention: "Attention", region: Pattern, queries: Any
) -> Float[Tensor, "batch head query"]:
    chosen = as_indices(queries, attention.n_queries, "query")
    height = max(1, min(near(attention), len(chosen)))
    width = block_width(attention, height)
    logs = Logs(attention, height, width)

    def within(rows: Tensor, keys: slice) -> Tensor:
        i, j = rows[:, None], columns(keys, rows)[None, :]
        counts = key_mask(attention, region, i, j) & attention.visible_at(i, j)
        p = logs.exp_over(logs(rows, keys, None))
        if attention.edits:
            p = logs.cut(p)
        return logs.only(p, counts).sum(-1)

    found: list[Tensor] = []
    for rows, keys in blocks(attention, chosen, local=True, n_keys=width):
        total = torch.zeros_like(logs.lse[:, :, rows])
        for part in inside(attention, region, rows, keys):
            for some in pieces(part, block_width(attention, len(rows))):
                total = total + recomputed(attention, within, rows, some)
        found.append(total)
    return torch.cat(found, dim=2)


def mass_on_sets(
    attention: "Attention",
    queries: Int[Tensor, "set row"],
    keys: Int[Tensor, "set *kind key"],
    behind: int | Sequence[int],
) -> Float[Tensor, "batch head *kind set row"]:
    """See `Attention.mass_on_sets`."""
    if queries.ndim != 2 or keys.ndim not in (2, 3) or len(queries) != len(keys):
        raise HeadscopeError(
            f"Sets of queries and keys need the shapes [set, row] and [set, key] or "
            f"[set, kind, key], not {tuple(queries.shape)} and {tuple(keys.shape)}."
        )
    for index, size, name in (
        (queries, attention.n_queries, "query"),
        (keys, attention.n_keys, "key"),
    ):
        if index.numel() and (int(index.min()) < -1 or int(index.max()) >= size):
            raise HeadscopeError(f"A {name} of a set lies outside 0 … {size - 1} (-1 is padding).")
    lse = finite(attention.lse())
    group = attention.group
    kinds = 1 if keys.ndim == 2 else keys.shape[1]
    least = torch.tensor([behind] * kinds if isinstance(behind, int) else list(behind))
    # Never below 0: no later key is visible.
    least = least.clamp(min=0).repeat_interleave(keys.shape[-1]).to(keys.device)

    def within(rows: Tensor, places: Tensor) -> Tensor:
        i, j = rows[:, :, None], places[:, None, :]
        real = (i >= 0) & (j >= 0)
        i, j = i.clamp(min=0), j.clamp(min=0)
        q = rearrange(wide(attention.q[:, :, i[..., 0]]), "b (k g) s r d -> b k s (g r) d", g=group)
        products = torch.matmul(q, wide(attention.k[:, :, j[:, 0]]).transpose(-1, -2))
        products = rearrange(products, "b k s (g r) c -> b (k g) s r c", g=group)
        key = attention.keys_by_head()[..., j]
        distance = attention.query_positions[:, None][..., i] - key
        counts = real & (key >= 0) & (distance >= least)
        if not attention.only_causal:
            counts = counts & attention.visible_at(i, j)
        logits = edited_logits(attention, products, i, j)
        # What does not count is set to 0 afterwards: -inf is slow to exponentiate, and more than
        # half of the pairs would have it. No logarithm of a probability that counts is above 0.
        p = torch.exp((logits - lse[:, :, i[..., 0], None]).clamp(max=0)).masked_fill(~counts, 0)
        mass = p.unflatten(-1, (kinds, -1)).sum(-1)
        return rearrange(mass, "b h s r kind -> b h kind s r")

    flat = keys.flatten(1)
    height, width, d = queries.shape[1], flat.shape[1], attention.q.shape[3]
    per_set = attention.q.shape[0] * attention.n_heads * (height * (width + d) + width * d)
    step = max(1, budget(attention) // max(1, per_set))
    parts = zip(queries.split(step), flat.split(step), strict=True)
    found = torch.cat([recomputed(attention, within, *part) for part in parts], dim=3)
    return found if keys.ndim == 3 else found[:, :, 0]


def row_stats(
    attention: "Attention", regions: Mapping[str, Keys], clip: int | None, queries: Any
) -> RowStats:
    """See `Attention.row_stats`."""
    if statistics.take(attention, queries):
        return _stats_on_kernels(attention, regions, clip, queries)

    def stats(part: Tile) -> tuple[Tensor, ...]:
        p, lse, rows = part.probabilities, finite(part.lse), part.queries
        index = columns(part.keys, rows)[None, :]
        distance = (
            attention.query_positions[:, None][..., rows, None]
            - attention.keys_by_head()[..., index]
        )
        distance = distance.clamp(min=0)
        entropy = (p * torch.where(p > 0, lse[..., None] - part.logits, 0)).sum(-1)
        if attention.sink_logits is not None:
            surprise = lse - attention.sink_logits[:, None].to(lse)
            entropy = entropy + torch.exp(-surprise) * surprise
        return (
            part.lse,
            entropy,
            (p * distance).sum(-1),
            (p * (distance if clip is None else distance.clamp(max=clip))).sum(-1),
            _top(part),
            *((p * key_mask(attention, k, rows[:, None], index)).sum(-1) for k in regions.values()),
        )

    found = [torch.cat(part, dim=2) for part in zip(*fold(attention, stats, queries), strict=True)]
    return RowStats(*found[:5], mass=dict(zip(regions, found[5:], strict=True)))


def _stats_on_kernels(
    attention: "Attention", regions: Mapping[str, Keys], clip: int | None, queries: Any
) -> RowStats:
    of_rows, masses = statistics.row_stats(attention, regions, clip)
    named: dict[str, Tensor] = {}
    for name, found in masses.items():
        # A pattern that the kernels do not know is left.
        missing = found is None
        named[name] = (
            mass(attention, regions[name], queries) if missing else _rows(attention, found, queries)
        )
    return RowStats(*(_rows(attention, x, queries) for x in of_rows), mass=named)


def _rows(attention: "Attention", found: Tensor, queries: Any) -> Tensor:
    """Some rows of what was found for all of them."""
    if queries is None:
        return found
    return found[:, :, as_indices(queries, attention.n_queries, "query").to(found.device)]


def _top(part: Tile) -> Int[Tensor, "batch head query"]:
    top = part.logits.argmax(-1) if part.keys.stop > part.keys.start else part.lse.long()
    return torch.where(part.lse.isneginf(), -1, top + part.keys.start)


def column_means(
    attention: "Attention", denominator: Literal["visible", "queries"]
) -> Float[Tensor, "batch head key"]:
    """See `Attention.column_means`."""
    if statistics.take(attention):
        total, count = statistics.column_sums(attention), statistics.viewers(attention)
    else:
        total, count = _column_sums(attention, denominator)
    if denominator == "queries":
        count = (attention.query_positions >= 0).sum(1)[:, None, None]
    return total / count.clamp(min=1)


def _column_sums(
    attention: "Attention", denominator: Literal["visible", "queries"]
) -> tuple[Float[Tensor, "batch head key"], Float[Tensor, " batch #head key"]]:
    """What every key receives, and from how many queries where that is the denominator."""
    batch, heads = attention.q.shape[:2]
    total = attention.q.new_zeros(batch, heads, attention.n_keys, dtype=wide_dtype(attention.q))
    count = torch.zeros_like(total[:, :1])
    for rows, keys in blocks(attention):
        edge = (keys.start, attention.n_keys - keys.stop)
        part = recomputed(
            attention, lambda r, k: tile(attention, r, k).probabilities.sum(2), rows, keys
        )
        total = total + pad(part, edge)
        if denominator == "visible":
            seen = attention.visible_at(rows[:, None], columns(keys, rows)[None, :])
            count = count + pad(seen.sum(2), edge)
    return total, count


def block_map(
    attention: "Attention", size: int, reduce: Literal["sum", "mean", "max"]
) -> Float[Tensor, "batch head query_block key_block"]:
    """See `Attention.block_map`."""
    if size < 1:
        raise HeadscopeError(f"block_map needs a block of at least one token, not {size}.")
    if statistics.take(attention):
        found = statistics.block_map(attention, size, reduce)
        if found is not None:
            return found
    n_key_blocks = -(-attention.n_keys // size)
    reduced, joined = (torch.amax, torch.maximum) if reduce == "max" else (torch.sum, torch.add)

    def pooled(part: Tile) -> Tensor:
        right = n_key_blocks * size - part.keys.stop
        squares = pad(part.probabilities, (part.keys.start, right)).unflatten(-1, (-1, size))
        return reduced(squares, dim=-1)

    bands: list[Tensor] = []  # one row of squares each, [batch, head, key_block]
    for rows, keys in blocks(attention):
        part = recomputed(attention, lambda r, k: pooled(tile(attention, r, k)), rows, keys)
        start = int(rows[0])
        # A run of rows may end inside a square; what it holds of it is joined to what came before.
        for piece in part.split(_cuts(start, len(rows), size), dim=2):
            band = reduced(piece, dim=2)
            if start % size:
                band = joined(bands.pop(), band)
            bands.append(band)
            start += piece.shape[2]
    out = torch.stack(bands, dim=2)
    return out / size**2 if reduce == "mean" else out


def _cuts(start: int, length: int, size: int) -> list[int]:
    """Lengths of the pieces into which multiples of `size` cut [start, start + length)."""
    edges = [start, *range(start - start % size + size, start + length, size), start + length]
    return [high - low for low, high in pairwise(edges)]
