"""Statistics of a causal pattern in two passes, one over rows and one over columns.

The pattern is exp(logit - lse) where query i sees key j: j <= i + ahead, and i + ahead - j < window
where there is one. Nothing of the size of queries times keys is held.
"""

# Triton's launches take more than its kernels declare.
# pyright: reportCallIssue=false

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.kernels.choice import on_its_device
from headscope.kernels.stats_sets import MOST_SETS, SetTable, TileList
from headscope.kernels.stats_source import Shape, Source, in_powers


@dataclass(frozen=True, eq=False)
class RowAnswers:
    """What the pass over rows gives; None where it was not asked for."""

    lse: Float[Tensor, "batch head query"]  # the learned sink included
    entropy: Float[Tensor, "batch head query"] | None = None  # nats, the sink as an outcome
    distance: Float[Tensor, "batch head query"] | None = None  # tokens
    clipped: Float[Tensor, "batch head query"] | None = None  # the same without a clip
    top: Int[Tensor, "batch head query"] | None = None  # -1 where no key is seen
    masses: Float[Tensor, "set batch head query"] | None = None


@on_its_device
def row_answers(
    source: Source,
    stats: bool = False,
    top: bool = False,
    clip: int | None = None,
    sets: Bool[Tensor, "set #batch #head key"] | None = None,
    shape: Shape | None = None,
) -> RowAnswers:
    """One pass over all rows.

    Args:
        stats: entropy and distances.
        top: the most attended key of each row; of equal logits the earliest.
        clip: the distance at which `clipped` is cut.
        sets: sets of keys whose mass is wanted; each 16 of them take one pass.
    """
    cut = Shape.of_rows(source.q) if shape is None else shape
    chunks = [None] if sets is None or not len(sets) else list(sets.split(MOST_SETS))
    # Each further pass is about sets alone.
    found = [
        _rows(source, stats and not i, top and not i, clip, chunk, cut)
        for i, chunk in enumerate(chunks)
    ]
    if len(found) == 1:
        return found[0]
    masses = torch.cat([part.masses for part in found if part.masses is not None])
    return replace(found[0], masses=masses)


def _rows(
    source: Source, stats: bool, top: bool, clip: int | None, sets: Tensor | None, shape: Shape
) -> RowAnswers:
    from headscope.kernels.stats_rows import rows_kernel

    def room(wanted: bool, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return torch.empty(source.of_rows, dtype=dtype, device=source.q.device) if wanted else None

    lse = torch.empty(source.of_rows, dtype=torch.float32, device=source.q.device)
    entropy, distance, near = room(stats), room(stats), room(stats and clip is not None)
    code = room(top, torch.int32)
    masses = table = None
    if sets is not None:
        # Triton's interpreter multiplies no bfloat16; a half in two parts is as good there.
        half = torch.float16 if source.q.device.type == "cpu" else torch.bfloat16
        table = SetTable.of(sets, shape.keys, half)
        masses = torch.empty(len(sets), *source.of_rows, device=source.q.device)
    sinks = source.sink_logits
    n_rows = source.q.shape[2]
    rows_kernel[(-(-n_rows // shape.rows), source.q.shape[0] * source.q.shape[1])](
        *source.tensors(shape),
        lse if sinks is None else sinks.float().contiguous(),
        *((lse, lse) if table is None else (table.members, table.mixed)),
        lse, *(lse if x is None else x for x in (entropy, distance, near, code, masses)),
        n_rows, source.k.shape[2], source.ahead, source.window or 0, clip or 0,
        0 if sets is None else len(sets), *source.factors,
        *source.q.stride()[:3], *source.k.stride()[:3],
        *((0, 0, 0, 0) if table is None else table.strides),
        **source.constants(shape), SINKS=sinks is not None, STATS=stats, TOP=top,
        CLIP=near is not None, SETS=0 if table is None else shape.sets,
        **shape.options,
    )  # fmt: skip
    found = None if code is None else _top(source, code, shape)
    return RowAnswers(lse, entropy, distance, distance if near is None else near, found, masses)


def _top(source: Source, code: Tensor, shape: Shape) -> Int[Tensor, "batch head query"]:
    from headscope.kernels.stats_top import top_kernel

    constants = source.constants(shape)
    for unused in ("M", "TMA", "PRECISION"):
        del constants[unused]
    out = torch.empty(source.of_rows, dtype=torch.int64, device=code.device)
    # As many rows at once as fit into the registers of a program.
    rows = max(1, 8192 // (shape.keys // shape.spread * constants["BLOCK_D"]))
    n_rows = source.q.shape[2]
    top_kernel[(-(-n_rows // rows), source.q.shape[0] * source.q.shape[1])](
        source.q, source.k, code, out, n_rows, source.k.shape[2], source.ahead,
        source.window or 0, *source.factors[1:], *source.q.stride()[:3], *source.k.stride()[:3],
        **constants, R=rows, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out


@dataclass(frozen=True, eq=False)
class ColumnAnswers:
    """What the pass over columns gives; None where it was not asked for."""

    sums: Float[Tensor, "batch head key"] | None  # attention received from all rows
    squares: Float[Tensor, "batch head band column"] | None  # of `shape.rows` × `shape.keys` pairs


@on_its_device
def column_answers(
    source: Source,
    lse: Float[Tensor, "batch head query"],
    sums: bool = True,
    squares: Literal["max", "sum"] | None = None,
    shape: Shape | None = None,
) -> ColumnAnswers:
    """One pass over all columns.

    Args:
        lse: of every row, -inf where it sees no key.
        squares: how the pairs of a square become one number; no squares if left out.
    """
    from headscope.kernels.stats_columns import columns_kernel

    cut = Shape.of_columns(source.q) if shape is None else shape
    batch, heads, n_rows = source.of_rows
    n_keys = source.k.shape[2]
    n_bands, n_columns = -(-n_rows // cut.rows), -(-n_keys // cut.keys)
    powers = in_powers(lse)
    total = pooled = None
    if sums:
        total = torch.empty(batch, heads, n_keys, dtype=torch.float32, device=lse.device)
    if squares is not None:  # those that no query can see are not visited
        pooled = torch.zeros(batch, heads, n_bands, n_columns, device=lse.device)
    columns_kernel[(n_columns, batch * heads)](
        *source.tensors(cut), powers, *(powers if x is None else x for x in (total, pooled)),
        n_rows, n_keys, n_bands, n_columns, source.ahead, source.window or 0, *source.factors,
        *source.q.stride()[:3], *source.k.stride()[:3],
        **source.constants(cut), SUMS=sums,
        SQUARES={None: 0, "max": 1, "sum": 2}[squares],
        **cut.options,
    )  # fmt: skip
    return ColumnAnswers(total, pooled)


@on_its_device
def mass_on_set(
    source: Source,
    lse: Float[Tensor, "batch head query"],
    keys: Bool[Tensor, "#batch #head key"],
    shape: Shape | None = None,
) -> Float[Tensor, "batch head query"]:
    """Probability of a set of keys, in time of the tiles that hold any of them."""
    cut = Shape.of_rows(source.q) if shape is None else shape
    return _mass(source, lse, TileList.of(keys, cut.keys), (0, 0, 0), cut)


@on_its_device
def mass_on_stream(
    source: Source,
    lse: Float[Tensor, "batch head query"],
    first_key: int,
    sink: int,
    window: int,
    shape: Shape | None = None,
) -> Float[Tensor, "batch head query"]:
    """Probability of the positions below `sink` and of the last `window`, in time of those.

    Args:
        first_key: the position of the first key.
    """
    cut = Shape.of_rows(source.q) if shape is None else shape
    return _mass(source, lse, None, (first_key, sink, window), cut)


def _mass(
    source: Source, lse: Tensor, chosen: TileList | None, stream: tuple[int, int, int], shape: Shape
) -> Float[Tensor, "batch head query"]:
    from headscope.kernels.stats_mass import mass_kernel

    out = torch.empty(source.of_rows, dtype=torch.float32, device=lse.device)
    powers, n_rows = in_powers(lse), source.q.shape[2]
    mass_kernel[(-(-n_rows // shape.rows), source.q.shape[0] * source.q.shape[1])](
        *source.tensors(shape), powers,
        *((powers, powers, powers) if chosen is None else chosen.tensors), out,
        n_rows, source.k.shape[2], source.ahead, source.window or 0, *stream, *source.factors,
        *source.q.stride()[:3], *source.k.stride()[:3],
        *((0, 0, 0, 0) if chosen is None else chosen.strides),
        **source.constants(shape), SET=chosen is not None,
        **shape.options,
    )  # fmt: skip
    return out
