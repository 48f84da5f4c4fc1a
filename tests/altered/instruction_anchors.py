import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.instruction_anchors import InstructionAnchors
from headscope.model import HeadModel

HEADS = ((0, 2), (1, 1), (2, 3), (2, 4))


def methods(model: HeadModel) -> list[InstructionAnchors]:
    return [
        InstructionAnchors((8, 12), (1, 5), heads=HEADS),
        InstructionAnchors((9, 13), [(2, 4), (6, 7)], action="amplify", factor=5.0, layers=[1, 2]),
    ]


def edit(method: InstructionAnchors, attention: Attention, pattern: Tensor) -> Tensor:
    out = pattern.clone()
    for b, keys in enumerate(attention.key_positions.tolist()):
        marked = [j for j, key in enumerate(keys) if any(a <= key < z for a, z in method.keys)]
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            if method.layers is not None and attention.layer not in method.layers:
                continue
            for i, query in enumerate(attention.query_positions[b].tolist()):
                if any(a <= query < z for a, z in method.queries):
                    out[b, h, i, marked] *= 0.0 if method.action == "block" else method.factor
                    out[b, h, i] /= out[b, h, i].sum().clamp(min=torch.finfo(torch.float64).tiny)
    return out
