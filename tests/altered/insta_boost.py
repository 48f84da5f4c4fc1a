from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.insta_boost import InstaBoost
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[InstaBoost]:
    return [
        InstaBoost((2, 6)),
        InstaBoost([(0, 1), (8, 10)], factor=0.2, heads=["L0H3", "L2H4"], part="prefill"),
    ]


def edit(method: InstaBoost, attention: Attention, pattern: Tensor) -> Tensor:
    out = pattern.clone()
    for b, keys in enumerate(attention.key_positions.tolist()):
        marked = [j for j, key in enumerate(keys) if any(a <= key < z for a, z in method.span)]
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            for i, query in enumerate(attention.query_positions[b].tolist()):
                late = query >= int(attention.run.prompt_length[b])
                if query < 0 or (method.part == "prefill" and late):
                    continue
                out[b, h, i, marked] *= method.factor
                out[b, h, i] /= out[b, h, i].sum()
    return out
