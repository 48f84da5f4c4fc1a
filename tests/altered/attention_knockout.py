import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.attention_knockout import AttentionKnockout
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[AttentionKnockout]:
    return [
        AttentionKnockout((2, 5)),
        AttentionKnockout((0, 1), queries=(4, 9), heads=["L1H2", "L2H0"]),
        AttentionKnockout([(1, 2), (6, 8)], layers=[0, 2], part="answer"),
    ]


def edit(method: AttentionKnockout, attention: Attention, pattern: Tensor) -> Tensor:
    """Weights of hidden pairs become zero, and rows are normalised again."""
    if method.layers is not None and attention.layer not in method.layers:
        return pattern
    out = pattern.clone()
    for b in range(pattern.shape[0]):
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            for i, query in enumerate(attention.query_positions[b].tolist()):
                if method.part == "answer" and query < int(attention.run.prompt_length[b]) - 1:
                    continue
                if method.queries is not None and not any(
                    a <= query < z for a, z in method.queries
                ):
                    continue
                for j, key in enumerate(attention.key_positions[b].tolist()):
                    if any(a <= key < z for a, z in method.keys):
                        out[b, h, i, j] = 0
    return out / out.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
