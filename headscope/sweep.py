"""All-row statistics that many probes read, from one pass over a pattern."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import threshold

from headscope.blocks import (
    block_logits,
    blocks,
    budget,
    columns,
    finite,
    recomputed,
    wide,
)

if TYPE_CHECKING:
    from headscope.attention import Attention

# Stands for -inf: exp of less is no normal float32, and takes a CPU fifty times as long.
_LOWEST = -80.0
# Rows of a block: few, so that little is computed beyond the diagonal, yet worth the calls.
_ROWS = {"cpu": 128, "cuda": 1024}


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
    lse = wide(finite(attention.lse()))
    logs = _Logs.of(attention, lse)
    sums = torch.zeros(*lse.shape[:2], attention.n_keys, dtype=lse.dtype, device=lse.device)
    viewers = torch.zeros_like(sums[:, : attention.keys_by_head().shape[1]])
    visible = viewers.new_zeros(*viewers.shape[:2], attention.n_queries)
    found: list[list[Tensor]] = []

    def part(cut: _Cut, seen: Tensor | None) -> tuple[Tensor, ...]:
        x = logs(cut, seen)
        p = torch.exp(x, out=logs.room(1, x.shape))
        if not cut.open or attention.edits:
            p = threshold(p, 2 * math.exp(_LOWEST), 0.0, inplace=logs.scratch is not None)
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
        entropy = -torch.mul(x, p, out=logs.room(0, x.shape)).sum(-1)
        return entropy, distance, clipped, p.sum(2)

    for rows, keys in _blocks(attention):
        total = [torch.zeros_like(lse[:, :, rows]) for _ in range(3)]
        for cut in _cuts(attention, rows, keys, clip):
            seen = None if cut.open else attention.visible_at(*_both(cut, lse.device))
            *of_rows, received = recomputed(attention, part, cut, seen)
            total = [a + b for a, b in zip(total, of_rows, strict=True)]
            sums[..., cut.keys] += received
            height, width = (x.stop - x.start for x in (cut.rows, cut.keys))
            viewers[..., cut.keys] += height if seen is None else seen.sum(2)
            visible[..., cut.rows] += width if seen is None else seen.sum(3)
        found.append(total)
    entropy, distance, clipped = (torch.cat(c, dim=2) for c in zip(*found, strict=True))
    if attention.sink_logits is not None:
        surprise = lse - attention.sink_logits[:, None].to(lse)
        entropy = entropy + torch.exp(-surprise) * surprise
    return Sweep(entropy, distance, clipped, sums, viewers, visible)


def _blocks(attention: "Attention") -> Iterator[tuple[slice, slice]]:
    """Runs of all rows, each with the slice of keys that they may see."""
    first, step = 0, _rows(attention)
    for start in range(0, attention.n_queries, step):
        for rows, keys in blocks(attention, slice(start, start + step)):
            yield slice(first, first + len(rows)), keys
            first += len(rows)


def _cuts(attention: "Attention", rows: slice, keys: slice, clip: int) -> Iterator[_Cut]:
    """The keys of some rows, in parts of which as much as possible is known beforehand."""
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

    far, near = edge(top - clip + 1), edge(bottom - clip)
    diagonal = max(far, edge(min(near, top + 1)))
    parts = (
        _Cut(rows, slice(keys.start, far), True, True),
        _Cut(rows, slice(far, diagonal), True, None),
        _Cut(rows, slice(diagonal, keys.stop), False, False if near <= diagonal else None),
    )
    yield from (cut for cut in parts if cut.keys.start < cut.keys.stop)


@dataclass(frozen=True, eq=False)
class _Logs:
    """Logarithms of a pattern, `_LOWEST` where it is 0, block by block."""

    attention: "Attention"
    lse: Float[Tensor, "batch head query"]
    # A row's lse rides along as one more coordinate, so that one product gives the logarithms.
    q: Float[Tensor, "batch head query wider"]
    k: Float[Tensor, "batch kv_head key wider"]
    # Two blocks that are written over, as fetching memory costs as much as the work; not where a
    # backward pass needs what they held.
    scratch: Float[Tensor, "2 place"] | None

    @classmethod
    def of(cls, attention: "Attention", lse: Float[Tensor, "batch head query"]) -> "_Logs":
        q, k = wide(attention.q), wide(attention.k)
        row = q.shape[0] * attention.n_heads * attention.n_keys
        size = min(_rows(attention) * row, max(budget(attention), row))
        return cls(
            attention,
            lse,
            torch.cat((q * attention.scale, -lse[..., None].to(q)), -1),
            torch.cat((k, torch.ones_like(k[..., :1])), -1),
            None if attention.needs_grad else q.new_empty(2, size),
        )

    def room(self, which: int, shape: Sequence[int]) -> Tensor | None:
        """A part of the scratch memory in a given shape; None where there is none."""
        return None if self.scratch is None else self.scratch[which, : math.prod(shape)].view(shape)

    def __call__(
        self, cut: _Cut, seen: Bool[Tensor, " batch #head row key"] | None
    ) -> Float[Tensor, "batch head row key"]:
        attention = self.attention
        if attention.softcap is not None or attention.edits:
            rows = columns(cut.rows, self.lse)
            logits = block_logits(attention, rows, cut.keys)
            return (logits - self.lse[:, :, cut.rows, None]).clamp(min=_LOWEST)
        q = rearrange(self.q[:, :, cut.rows], "b (k g) q d -> (b k) (g q) d", g=attention.group)
        k = rearrange(self.k[:, :, cut.keys], "b k j d -> (b k) d j")
        x = torch.bmm(q, k, out=self.room(0, (*q.shape[:2], k.shape[2])))
        x = torch.clamp(x, min=_LOWEST, out=self.room(0, x.shape))
        x = rearrange(x, "(b k) (g q) j -> b (k g) q j", b=len(self.q), g=attention.group)
        return x if seen is None else x.masked_fill_(~seen, _LOWEST)


def _both(cut: _Cut, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, keys = (torch.arange(x.start, x.stop, device=device) for x in (cut.rows, cut.keys))
    return rows[:, None], keys[None, :]


def _rows(attention: "Attention") -> int:
    return min(_ROWS.get(attention.q.device.type, _ROWS["cpu"]), max(attention.n_queries, 1))
