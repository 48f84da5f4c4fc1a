import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.pasta import Pasta
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[Pasta]:
    return [
        Pasta((3, 6)),
        Pasta([(1, 3), (7, 9)], alpha=0.3, heads=["L1H2", "L2H0", "L2H5"]),
        Pasta((2, 4), layers=[1], part="decode"),
    ]


def edit(method: Pasta, attention: Attention, pattern: Tensor) -> Tensor:
    """Prompt keys outside the span are scaled, then chosen rows are normalised again."""
    if method.layers is not None and attention.layer not in method.layers:
        return pattern
    out = pattern.clone()
    for b, keys in enumerate(attention.key_positions.tolist()):
        start = int(attention.run.prompt_length[b])
        factor = torch.ones(len(keys), dtype=pattern.dtype)
        for j, key in enumerate(keys):
            if key < start and not any(a <= key < z for a, z in method.span):
                factor[j] = method.alpha
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            for i, query in enumerate(attention.query_positions[b].tolist()):
                if query < 0 or (method.part == "decode" and query < start):
                    continue
                row = pattern[b, h, i] * factor
                out[b, h, i] = row / row.sum()
    return out
