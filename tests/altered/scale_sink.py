import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.scale_sink import ScaleSink
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[ScaleSink]:
    return [
        ScaleSink(0.0),
        ScaleSink(2.0, sink=(0, 3), heads=["L0H0", "L2H2"]),
        ScaleSink(0.1, sink=[(0, 1), (4, 5)], layers=[1, 2], part="answer"),
    ]


def edit(method: ScaleSink, attention: Attention, pattern: Tensor) -> Tensor:
    if method.layers is not None and attention.layer not in method.layers:
        return pattern
    out, stop = pattern.clone(), max(z for _, z in method.sink)
    for b, keys in enumerate(attention.key_positions.tolist()):
        sinks = [j for j, key in enumerate(keys) if any(a <= key < z for a, z in method.sink)]
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            for i, query in enumerate(attention.query_positions[b].tolist()):
                first = int(attention.run.prompt_length[b]) - 1 if method.part == "answer" else 0
                if query < max(stop, first):
                    continue
                out[b, h, i, sinks] *= method.dose
                out[b, h, i] /= out[b, h, i].sum().clamp(min=torch.finfo(torch.float64).tiny)
    return out
