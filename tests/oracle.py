"""Dense float64 attention, written down once more without blocks, edits or kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from headscope.attention import Attention


@dataclass
class Dense:
    """Logits, pattern and output of one layer, everything expanded to query heads."""

    logits: Tensor  # [batch, head, query, key], -inf where invisible
    pattern: Tensor
    z: Tensor
    lse: Tensor


def visible(a: Attention) -> Tensor:
    """Visibility pair by pair, from the definition."""
    heads, kv_heads = a.q.shape[1], a.k.shape[1]
    query = a.query_positions[:, None, :, None]
    by_head = a.key_positions if a.key_positions.ndim == 3 else a.key_positions[:, None]
    key = by_head.expand(-1, kv_heads, -1).repeat_interleave(heads // kv_heads, 1)[:, :, None]
    seen = (key >= 0) & (key <= query)
    if a.window is not None:
        seen &= query - key < a.window
    if a.chunk is not None:
        seen &= query // a.chunk == key // a.chunk
    return seen if a.mask is None else seen & a.mask


def dense(a: Attention, extra: Tensor | float = 0.0) -> Dense:
    """The layer with `extra` added to its logits."""
    group = a.q.shape[1] // a.k.shape[1]
    q = a.q.double()
    k, v = (x.double().repeat_interleave(group, 1) for x in (a.k, a.v))
    logits = (q @ k.transpose(-1, -2)) * a.scale
    if a.softcap is not None:
        logits = a.softcap * torch.tanh(logits / a.softcap)
    logits = (logits + extra).masked_fill(~visible(a), -torch.inf)
    total = logits
    if a.sink_logits is not None:
        sink = a.sink_logits.double()[None, :, None, None].expand(*logits.shape[:3], 1)
        total = torch.cat((logits, sink), dim=-1)
    pattern = torch.softmax(total, dim=-1).nan_to_num(0)[..., : logits.shape[-1]]
    return Dense(logits, pattern, pattern @ v, total.logsumexp(-1))
