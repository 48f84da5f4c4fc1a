import torch
from torch import Tensor

from altered.act import sinks
from headscope.attention import Attention
from headscope.interventions.remove_sink import RemoveSink
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[RemoveSink]:
    return [
        RemoveSink(threshold=0.12),
        RemoveSink(threshold=1.0, first=3, heads=["L0H0", "L2H3"], part="decode"),
    ]


def edit(method: RemoveSink, attention: Attention, pattern: Tensor) -> Tensor:
    state = attention.run.state.setdefault(("by hand", method), {})
    if attention.layer not in state:
        state[attention.layer] = sinks(attention, pattern, method.threshold)
    out = pattern.clone()
    for b, h in ((b, h) for b in range(len(pattern)) for h in range(pattern.shape[1])):
        if method.heads is not None and (attention.layer, h) not in method.heads:
            continue
        early = [
            j for j, key in enumerate(attention.key_positions[b].tolist()) if key < method.first
        ]
        gone = sorted({*state[attention.layer][b, h], *early})
        start = int(attention.run.prompt_length[b]) - (method.part == "answer")
        for i, query in enumerate(attention.query_positions[b].tolist()):
            if query >= start:
                out[b, h, i, gone] = 0
                out[b, h, i] /= out[b, h, i].sum().clamp(min=torch.finfo(torch.float64).tiny)
    return out
