"""All-row statistics that many probes read, from one pass over a pattern."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.blocks import blocks, columns, near, recomputed
from headscope.kernels import statistics
from headscope.logs import Logs, block_width, pieces

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True, eq=False)
class Sweep:
    """What one pass over a pattern measures; a row that sees no key is all zeros.

    A learned sink takes its share of every row: distances and columns then add up to less than one
    row's worth, and the entropy counts it as an outcome.
    """

    entropy: Float[Tensor, "batch head query"]  # nats
    distance: Float[Tensor, "batch head query"]  # sum of p * (query - key), in tokens
    clipped_distance: Float[Tensor, "batch head query"]  # the same, distances cut at `clip`
    column_sums: Float[Tensor, "batch head key"]  # attention that each key receives from all rows
    viewers: Float[Tensor, " batch #head key"]  # how many queries may see each key
    visible: Float[Tensor, " batch #head query"]  # how many keys each query may see

    @property
    def column_means(self) -> Float[Tensor, "batch head key"]:
        """Mean attention on each key over the queries that may see it."""
        return self.column_sums / self.viewers.clamp(min=1)


@dataclass(frozen=True)
class _Cut:
    """A slice of the keys of some rows, and what is known of it beforehand."""

    rows: slice
    keys: slice
    open: bool  # every row sees every key
    clipped: bool | None  # distances reach the clip: everywhere, nowhere, or here and there


def sweep(attention: "Attention", clip: int) -> Sweep:
    """See `Attention.sweep`."""
    if statistics.take(attention):
        return _on_kernels(attention, clip)
    step = min(near(attention), max(attention.n_queries, 1))
    logs = Logs(attention, step, block_width(attention, step))
    lse = logs.lse
    sums = torch.zeros(*lse.shape[:2], attention.n_keys, dtype=lse.dtype, device=lse.device)
    kinds = 1 if attention.mask is None else attention.mask.shape[1]  # of heads that see alike
    viewers = torch.zeros_like(sums[:, : max(kinds, attention.keys_by_head().shape[1])])
    visible = viewers.new_zeros(*viewers.shape[:2], attention.n_queries)
    found: list[list[Tensor]] = []

    def part(cut: _Cut, seen: Tensor | None) -> tuple[Tensor, ...]:
        x = logs(cut.rows, cut.keys, seen)
        p = logs.exp(x)
        if not cut.open or attention.edits:
            p = logs.cut(p)
        query = attention.query_positions[:, None, cut.rows]
        key = attention.keys_by_head()[..., cut.keys]
        # Counted from the first row, so that no small distance is the difference of large numbers.
        origin = query[..., :1]
        weights = torch.stack((torch.ones_like(key), key - origin), -1).to(p)
        total, place = torch.matmul(p, weights).unbind(-1)
        distance = (query - origin).to(p) * total - place
        clipped = clip * total if cut.clipped else distance
        if cut.clipped is None:
            beyond = (query[..., None] - key[..., None, :] - clip).clamp(min=0).to(p)
            clipped = distance - (p * beyond).sum(-1)
        entropy = -logs.times(x, p).sum(-1)
        return entropy, distance, clipped, p.sum(2)

    for rows, keys in _blocks(attention, step):
        total = [torch.zeros_like(lse[:, :, rows]) for _ in range(3)]
        for cut in _cuts(attention, rows, keys, clip):
            seen = None
            if not cut.open:
                i, j = columns(cut.rows, lse)[:, None], columns(cut.keys, lse)[None, :]
                seen = attention.visible_at(i, j)
            *of_rows, received = recomputed(attention, part, cut, seen)
            total = [a + b for a, b in zip(total, of_rows, strict=True)]
            sums[..., cut.keys] += received
            height, width = (x.stop - x.start for x in (cut.rows, cut.keys))
            viewers[..., cut.keys] += height if seen is None else seen.sum(2)
            visible[..., cut.rows] += width if seen is None else seen.sum(3)
        found.append(total)
    found = found or [[torch.zeros_like(lse)] * 3]
    entropy, distance, clipped = (torch.cat(c, dim=2) for c in zip(*found, strict=True))
    if attention.sink_logits is not None:
        surprise = lse - attention.sink_logits[:, None].to(lse)
        entropy = entropy + torch.exp(-surprise) * surprise
    return Sweep(entropy, distance, clipped, sums, viewers, visible)


def _on_kernels(attention: "Attention", clip: int) -> Sweep:
    rows, received = statistics.sums(attention, clip)
    viewers, visible = statistics.viewers(attention), statistics.visible(attention)
    return Sweep(*rows, received, viewers, visible)


def _blocks(attention: "Attention", step: int) -> Iterator[tuple[slice, slice]]:
    """Runs of all rows, each with the slice of keys that they may see."""
    first, width = 0, block_width(attention, step)
    for start in range(0, attention.n_queries, step):
        for rows, keys in blocks(attention, slice(start, start + step), n_keys=width):
            yield slice(first, first + len(rows)), keys
            first += len(rows)


def _cuts(attention: "Attention", rows: slice, keys: slice, clip: int) -> Iterator[_Cut]:
    """The keys of some rows, in blocks of which as much as possible is known beforehand."""
    width = block_width(attention, rows.stop - rows.start)
    for cut in _parts(attention, rows, keys, clip):
        yield from (replace(cut, keys=part) for part in pieces(cut.keys, width))


def _parts(attention: "Attention", rows: slice, keys: slice, clip: int) -> Iterator[_Cut]:
    slots = attention.slots
    plain = attention.mask is None and attention.chunk is None and attention.key_positions.ndim == 2
    if slots is None or slots.padded or not plain:
        yield _Cut(rows, keys, False, None)
        return
    # The keys that are the first and the last of the rows themselves.
    ahead = slots.first_query - slots.first_key
    top, bottom = rows.start + ahead, rows.stop + ahead - 1
    if attention.window is not None and bottom - attention.window >= keys.start:
        yield _Cut(rows, keys, False, None)
        return

    def edge(key: int) -> int:
        return min(max(key, keys.start), keys.stop)

    far, close = edge(top - clip + 1), edge(bottom - clip)
    diagonal = max(far, edge(min(close, top + 1)))
    parts = (
        _Cut(rows, slice(keys.start, far), True, True),
        _Cut(rows, slice(far, diagonal), True, None),
        _Cut(rows, slice(diagonal, keys.stop), False, False if close <= diagonal else None),
    )
    yield from (cut for cut in parts if cut.keys.start < cut.keys.stop)
