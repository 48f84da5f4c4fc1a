from functools import partial

import torch

from altered.evicting import hidden_from_then_on
from headscope.attention import Attention
from headscope.interventions.snap_kv import SnapKV
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[SnapKV]:
    return [SnapKV(9, 3, 3), SnapKV(7, 2, 5, "max"), SnapKV(10, 4, 1)]


def by_hand(method: SnapKV):
    """Votes counted key by key after the prompt; -inf on what is gone in every later step."""
    return hidden_from_then_on(partial(evicted, method))


def evicted(method: SnapKV, attention: Attention, pattern: torch.Tensor) -> torch.Tensor:
    n, reach = attention.n_keys, method.kernel // 2
    gone = torch.zeros(len(pattern), attention.n_kv_heads, n, dtype=torch.bool)
    for b, kv in torch.cartesian_prod(*map(torch.arange, gone.shape[:2])).tolist():
        heads = range(kv * attention.group, (kv + 1) * attention.group)
        old = [j for j in range(n - method.window) if attention.key_positions[b, j] >= 0]
        votes = {j: sum(float(pattern[b, h, -method.window :, j].sum()) for h in heads)
                 for j in old}  # fmt: skip
        pooled = {}
        for j in old:
            near = [votes.get(i, 0.0) for i in range(j - reach, j + reach + 1)]
            pooled[j] = max(near) if method.pooling == "max" else sum(near) / method.kernel
        ranked = sorted(old, key=lambda j: -pooled[j])
        gone[b, kv, ranked[method.capacity - method.window :]] = True
    return gone
