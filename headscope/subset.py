"""An attention cut down: to some heads, or to one sequence of the batch."""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from headscope.edits import as_indices, kept_on
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.attention import Attention


def some_heads(attention: "Attention", heads: Any) -> "Attention":
    """Some query heads with the KV heads that they read; see `Attention.some_heads`."""
    index = as_indices(heads, attention.n_heads, "head")
    kv = (index // attention.group).unique_consecutive()
    if len(kv) == 0 or bool((index.diff() <= 0).any()):
        raise HeadscopeError("Some heads of an attention are at least one, in ascending order.")
    uneven = len(index) % len(kv) != 0
    if uneven or bool((index.reshape(len(kv), -1) // attention.group != kv[:, None]).any()):
        raise HeadscopeError("Take as many query heads of each KV head that is read.")
    device = attention.q.device
    index, kv = (kept_on(tuple(x.tolist()), torch.long, device) for x in (index, kv))
    cut = {"q": attention.q[:, index]}
    if len(kv) < attention.n_kv_heads:
        cut |= {"k": attention.k[:, kv], "v": attention.v[:, kv]}
        if attention.key_positions.ndim == 3:
            cut["key_positions"] = attention.key_positions[:, kv]
    if attention.mask is not None and attention.mask.shape[1] > 1:
        cut["mask"] = attention.mask[:, index]
    if attention.sink_logits is not None:
        cut["sink_logits"] = attention.sink_logits[index]
    if attention.known_lse is not None:
        cut["known_lse"] = attention.known_lse[:, index]
    edits = tuple(edit.some_heads(index) for edit in attention.edits)
    return dataclasses.replace(attention, **cut, edits=edits)


def batch_row(attention: "Attention", row: int) -> "Attention":
    """One sequence of the batch; see `Attention.batch_row`."""
    one = slice(row, row + 1)
    cut = {
        name: getattr(attention, name)[one]
        for name in ("q", "k", "v", "query_positions", "key_positions")
    }
    for name in ("mask", "hidden", "known_lse"):
        value = getattr(attention, name)
        cut[name] = None if value is None else value[one]
    edits = tuple(edit.batch_row(row) for edit in attention.edits)
    rope = None if attention.rope is None else attention.rope.batch_row(row)
    return dataclasses.replace(attention, **cut, edits=edits, rope=rope)
