from math import exp

from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.calibrated_attention import CalibratedAttention
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[CalibratedAttention]:
    return [
        CalibratedAttention(((1, 3), (4, 9)), amounts=(2.0, -1.0), part="all"),
        CalibratedAttention(((6, 8), (0, 2), (9, 12)), amounts=(0.0, 3.0, 1.0)),
        CalibratedAttention(
            ((2, 5), (7, 8)), amounts=(-40.0, 1.0), layers=[1, 2], heads=["L1H2", "L2H0", "L2H5"],
            part="decode",
        ),
    ]  # fmt: skip


def edit(method: CalibratedAttention, attention: Attention, pattern: Tensor) -> Tensor:
    """Weights of documents in new proportions; their sum in a row stays."""
    if method.layers is not None and attention.layer not in method.layers:
        return pattern
    out = pattern.clone()
    for b in range(pattern.shape[0]):
        slots = {key: j for j, key in enumerate(attention.key_positions[b].tolist()) if key >= 0}
        start = int(attention.run.prompt_length[b])
        for h in range(pattern.shape[1]):
            if method.heads is not None and (attention.layer, h) not in method.heads:
                continue
            for i, query in enumerate(attention.query_positions[b].tolist()):
                if query < {"all": 0, "answer": start - 1, "decode": start}[method.part]:
                    continue
                before = after = 0.0
                for (first, stop), amount in zip(method.documents, method.amounts, strict=True):
                    for key in range(first, stop):
                        weight = float(pattern[b, h, i, slots[key]]) if key in slots else 0.0
                        before, after = before + weight, after + weight * exp(amount)
                if not after:
                    continue
                for (first, stop), amount in zip(method.documents, method.amounts, strict=True):
                    for key in range(first, stop):
                        if key in slots:
                            out[b, h, i, slots[key]] *= exp(amount) * before / after
    return out
