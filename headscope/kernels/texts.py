"""Where the texts of a batch lie, as plain numbers that kernels are planned with."""

from typing import TYPE_CHECKING

import torch

from headscope.kernels.tiles import Span

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.kernels.plan import Text


def texts_of(attention: "Attention") -> "tuple[Text, ...] | None":
    """One text for each row of a batch, padding left out; None where a row has holes, or queries
    without a key of their own.

    Nothing is asked of the device where slots are positions; where a batch is padded, or slots are
    not known, once.
    """
    from headscope.kernels.plan import Text

    batch, queries, keys = len(attention.q), attention.n_queries, attention.n_keys
    if 0 in (batch, queries, keys):
        return None
    slots = attention.slots
    if slots is not None and not slots.padded:
        span = _span(slots.first_query, queries, slots.first_key, keys)
        return None if span is None else tuple(Text(row, 0, 0, span) for row in range(batch))
    runs = torch.stack([_run(x) for x in (attention.query_positions, attention.key_positions)], 1)
    found = []
    for row, (query, key) in enumerate(runs.tolist()):
        (q_start, q_count, q_first, q_even), (k_start, k_count, k_first, k_even) = query, key
        if not (q_even and k_even):
            return None
        if q_count and k_count:
            span = _span(q_first, q_count, k_first, k_count)
            if span is None:
                return None
            found.append(Text(row, q_start, k_start, span))
    return tuple(found) or None


def _span(first: int, queries: int, lowest: int, keys: int) -> Span | None:
    """Positions of queries, and of keys up to the last query; None where queries stand behind all
    keys or before the first."""
    stop = first + queries
    if stop > lowest + keys or first < lowest:
        return None
    return Span(first, queries, lowest, stop - lowest)


def _run(positions: torch.Tensor) -> torch.Tensor:
    """Start, length and first position of what is no padding, and whether it is one run."""
    index = torch.arange(positions.shape[1], device=positions.device)
    real = positions >= 0
    count = real.sum(1)
    start = torch.where(real, index, positions.shape[1]).amin(1).clamp(max=positions.shape[1] - 1)
    first = positions.gather(1, start[:, None])[:, 0]
    inside = (index >= start[:, None]) & (index < (start + count)[:, None])
    expected = first[:, None] + index - start[:, None]
    even = (torch.where(inside, expected, -1) == torch.where(real, positions, -1)).all(1)
    return torch.stack((start, count, first, even.long()), 1)
