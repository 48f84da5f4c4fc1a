import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.snap_kv import SnapKV
from headscope.model import HeadModel
from headscope.stack import Attend


def methods(model: HeadModel) -> list[SnapKV]:
    return [SnapKV(9, 3, 3), SnapKV(7, 2, 5, "max"), SnapKV(10, 4, 1)]


def by_hand(method: SnapKV):
    """Votes counted key by key after the prompt; -inf on what is gone in every later step."""
    gone: dict[int, torch.Tensor] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        if attention.run.step == 0:
            dense = oracle.dense(attention)
            gone[attention.layer] = evicted(method, attention, dense.pattern)
        else:
            before = gone[attention.layer]
            new = torch.zeros(*before.shape[:2], attention.n_keys - before.shape[2])
            lost = torch.cat((before, new.bool()), 2).repeat_interleave(attention.group, 1)
            hidden = torch.zeros(lost.shape, dtype=torch.float64).masked_fill(lost, -torch.inf)
            dense = oracle.dense(attention, hidden[:, :, None])
        return Attended(dense.z.to(attention.v.dtype), attention)

    return attend


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
