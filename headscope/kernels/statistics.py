"""What an attention is asked about all of its rows, on the kernels of statistics.

`headscope.answers` and `headscope.sweep` define the answers, and ask here first.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.edits import Keys, as_indices, as_mask
from headscope.kernels import stats
from headscope.kernels.choice import fetches_tiles, nobody_asks, runs, why_not_these
from headscope.kernels.layout import side_by_side
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.streaming import Streaming

if TYPE_CHECKING:
    from headscope.attention import Attention

_FEW = 4  # of less than one row in this many, the reference is as fast

# Of attentions that are still held: what several answers about one need, by name.
_kept: "WeakKeyDictionary[Attention, tuple[list[int], dict[str, Tensor]]]" = WeakKeyDictionary()


def take(attention: "Attention", queries: Any = None) -> bool:
    """Whether the kernels answer what is asked about some queries.

    Raises:
        HeadscopeError: they cannot, and impl="triton" was asked for.
    """
    if nobody_asks(attention.q.device) or 0 in (*attention.q.shape[:3], attention.n_keys):
        return False
    if queries is not None:
        rows = as_indices(queries, attention.n_queries, "query")
        if len(rows) * _FEW < attention.n_queries:
            return False
    return runs(_why_not(attention), "Statistics of attention")


def _why_not(attention: "Attention") -> str | None:
    slots = attention.slots
    if attention.edits:
        return "logits are edited"
    if attention.mask is not None or attention.chunk is not None:
        return "the layer hides keys by more than causality and a window"
    if slots is None or slots.padded or attention.key_positions.ndim > 2:
        return "the batch is padded, or the places of its keys are not known"
    if attention.needs_grad:
        return "it is differentiated"
    if attention.scale <= 0:
        return f"logits are scaled by {attention.scale:g}"
    q, k = attention.q, attention.k
    if q.dtype == k.dtype == torch.float32:
        # Statistics take single precision too, where there is room for it; as for all else, these
        # are like halves.
        if q.shape[-1] > 128 or not fetches_tiles(q.device):
            return "single precision takes heads up to 128 wide and compute capability 9.0"
        q, k = (x.new_empty((1,) * 4, dtype=torch.float16).expand(x.shape) for x in (q, k))
    return why_not_these(q, k)


def _source(attention: "Attention") -> stats.Source:
    assert attention.slots is not None
    q, k = side_by_side(attention.q), side_by_side(attention.k)
    ahead = attention.slots.first_query - attention.slots.first_key
    window, sinks = attention.window, attention.sink_logits
    return stats.Source(q, k, attention.scale, ahead, attention.softcap, window, sinks)


def lse(attention: "Attention") -> Float[Tensor, "batch head query"]:
    """See `Attention.lse`."""
    if attention.known_lse is not None:
        return attention.known_lse
    kept = _of(attention)
    if "lse" not in kept:
        kept["lse"] = stats.row_answers(_source(attention)).lse
    return kept["lse"]


def _of(attention: "Attention") -> dict[str, Tensor]:
    """What is kept of an attention, as long as what it is made of is what it was."""
    made_of = (attention.q, attention.k, attention.sink_logits)
    held = [x for x in made_of if x is not None]
    if any(x.is_inference() for x in held):  # nobody counts how often these are written over
        return {}
    versions = [x._version for x in held]
    if attention not in _kept or _kept[attention][0] != versions:
        _kept[attention] = (versions, {})
    return _kept[attention][1]


def row_stats(
    attention: "Attention", regions: Mapping[str, Keys], clip: int | None
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """See `Attention.row_stats`: what it says of rows, and masses.

    The mass of a region is None where the kernels do not know it.
    """
    # The product with a table of sets came out wrong on an H100 with Triton 3.6 where logits are of
    # single precision; their masses are computed set by set.
    single = attention.q.dtype == torch.float32 and attention.q.is_cuda
    sets = {name: None if single else _set(attention, keys) for name, keys in regions.items()}
    known = [keys for keys in sets.values() if keys is not None]
    together = torch.stack(torch.broadcast_tensors(*known)) if known else None
    found = stats.row_answers(_source(attention), True, True, clip, together)
    lse = _lse_beside(attention, found)
    masses = iter([] if found.masses is None else found.masses)
    of_regions = {
        name: mass(attention, regions[name]) if keys is None else next(masses)
        for name, keys in sets.items()
    }
    assert found.top is not None
    return [lse, *_moments(found), found.top], of_regions


def _lse_beside(attention: "Attention", found: stats.RowAnswers) -> Tensor:
    """The log-sum-exp that an engine left, or the one that was found in passing, which is kept."""
    if attention.known_lse is not None:
        return attention.known_lse
    return _of(attention).setdefault("lse", found.lse)


def _moments(found: stats.RowAnswers) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, distance and clipped distance."""
    assert found.entropy is not None
    assert found.distance is not None
    assert found.clipped is not None
    return found.entropy, found.distance, found.clipped


def _set(attention: "Attention", region: Keys) -> Bool[Tensor, "#batch #head key"] | None:
    """A region as a set of keys; None where it depends on the query."""
    if isinstance(region, Full):
        return torch.ones(1, 1, attention.n_keys, dtype=torch.bool, device=attention.q.device)
    return None if isinstance(region, Pattern) else as_mask(attention, region)


def mass(attention: "Attention", region: Keys) -> Float[Tensor, "batch head query"] | None:
    """See `Attention.mass`; None where the kernels do not know the region."""
    keys = _set(attention, region)
    if keys is not None:
        return stats.mass_on_set(_source(attention), lse(attention), keys)
    if isinstance(region, Streaming) and not region.growth:
        assert attention.slots is not None
        first = attention.slots.first_key
        source, found = _source(attention), lse(attention)
        return stats.mass_on_stream(source, found, first, region.sink, region.window)
    return None


def sums(attention: "Attention", clip: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """What a sweep holds: entropy and distances of rows, and what every key receives."""
    found = stats.row_answers(_source(attention), stats=True, clip=clip)
    _lse_beside(attention, found)
    return _moments(found), column_sums(attention)


def column_sums(attention: "Attention") -> Float[Tensor, "batch head key"]:
    """What every key receives from all rows."""
    kept = _of(attention)
    if "sums" not in kept:
        _columns(attention, stats.Shape.of_columns(attention.q), None)
    return kept["sums"]


def _columns(
    attention: "Attention", shape: stats.Shape, squares: Literal["max", "sum"] | None
) -> Tensor | None:
    """Squares, if wanted; what every key receives is found in passing, and kept."""
    kept = _of(attention)
    wanted = "sums" not in kept
    source = _source(attention)
    found = stats.column_answers(source, lse(attention), wanted, squares, shape)
    if found.sums is not None:
        kept["sums"] = found.sums
    return found.squares


def viewers(attention: "Attention") -> Float[Tensor, "batch 1 key"]:
    """How many queries may see each key."""
    source = _source(attention)
    # Its first viewer is the query whose own key it is.
    first = torch.arange(attention.n_keys, device=source.q.device) - source.ahead
    return _count(first, attention.n_queries, source).expand(len(source.q), 1, -1)


def visible(attention: "Attention") -> Float[Tensor, "batch 1 query"]:
    """How many keys each query may see."""
    source = _source(attention)
    own = torch.arange(attention.n_queries, device=source.q.device) + source.ahead
    # From the last key backwards, it is the same as above.
    first = attention.n_keys - 1 - own
    return _count(first, attention.n_keys, source).expand(len(source.q), 1, -1)


def _count(first: Tensor, size: int, source: stats.Source) -> Tensor:
    """How many of `size` come from a first one on, and within the window."""
    stop = torch.full_like(first, size)
    if source.window is not None:
        stop = (first + source.window).clamp(max=size)
    return (stop - first.clamp(min=0)).clamp(min=0).float()


def block_map(
    attention: "Attention", size: int, reduce: Literal["sum", "mean", "max"]
) -> Float[Tensor, "batch head query_block key_block"] | None:
    """See `Attention.block_map`; None where squares are not made of whole tiles."""
    if size % 64:
        return None
    shape = stats.Shape.of_columns(attention.q)
    if size % 128:
        shape = replace(shape, keys=64)
    how: Literal["max", "sum"] = "max" if reduce == "max" else "sum"
    found = _columns(attention, shape, how)
    assert found is not None
    for axis, part in ((2, shape.rows), (3, shape.keys)):
        if size > part:
            found = _pooled(found, axis, size // part, how)
    return found / size**2 if reduce == "mean" else found


def _pooled(squares: Tensor, axis: int, per: int, how: Literal["max", "sum"]) -> Tensor:
    """Squares that are larger along one axis."""
    if missing := -squares.shape[axis] % per:  # padding by nothing would be a copy
        squares = pad(squares, (0, missing) if axis == 3 else (0, 0, 0, missing))
    parts = squares.unflatten(axis, (-1, per))
    return parts.amax(axis + 1) if how == "max" else parts.sum(axis + 1)
