"""Selections of any kind: every pair of tokens is looked up, head by head."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headscope.kernels.choice import notice
from headscope.kernels.plan import Plan, Text, assembled
from headscope.kernels.tiles import Reach, by_pairs, tiling
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.kernels.resolving import Resolved


def plan_by_pairs(
    attention: "Attention", found: "Resolved", reach: Reach, texts: tuple[Text, ...]
) -> Plan:
    """A plan for selections of any kind: every pair of tokens is looked up, head by head."""
    notice(
        "Some selected keys are no whole tiles of 64 tokens, or the layer or its cache hides some: "
        "their tiles are found pair by pair, which takes longer than the attention."
    )
    device, parts = attention.q.device, []
    for text in texts:
        row = attention.batch_row(text.batch)
        for head, sees in enumerate(found.sees):
            if isinstance(sees, Pattern):
                parts.append((head, text, tiling(sees, text.span, reach, device)))
                continue
            number, place = sees
            selection = found.selections[number]
            index = torch.tensor([place], device=device)
            held = [x for x in (selection.blocks, selection.columns) if x is not None]
            if any(x.shape[1] > 1 for x in held):
                selection = selection.heads(index)
            seen = _seen(selection.batch_row(text.batch), row, text, reach)
            parts.append((head, text, by_pairs(seen, text.span, device)))
    return assembled(parts, device)


def _seen(
    selection: Selection, attention: "Attention", text: Text, reach: Reach
) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether a selection of one head lets pairs of positions be seen."""
    span = text.span

    def seen(query: Tensor, key: Tensor) -> Tensor:
        row = (query - span.first + text.query).clamp(0, attention.n_queries - 1)
        column = (key - span.lowest + text.key).clamp(0, attention.n_keys - 1)
        chosen = selection.mask(attention, row, column)
        return chosen.reshape(chosen.shape[-3:]) & reach.mask(query, key)

    return seen
