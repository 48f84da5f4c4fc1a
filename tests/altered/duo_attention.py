from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.duo_attention import DuoAttention
from headscope.model import HeadModel

STREAMING = ((0, 1), (1, 0), (2, 0), (2, 1))

NO_HEADS = {"streaming": ()}


def methods(model: HeadModel) -> list[DuoAttention]:
    return [
        DuoAttention(STREAMING, 2, 5),
        DuoAttention(STREAMING, 0, 4, "decode"),
        DuoAttention.keeping(model, ["L0KV0", "L1KV0"], 1, 3, "answer"),
        DuoAttention(STREAMING, 1, 6, "prefill"),
    ]


def edit(method: DuoAttention, attention: Attention, pattern: Tensor) -> Tensor:
    """Weights of keys that a streaming head gave up become zero; rows are normalised again."""
    out = pattern.clone()
    for b, queries in enumerate(attention.query_positions.tolist()):
        start = int(attention.run.prompt_length[b])
        for h in range(attention.n_heads):
            if (attention.layer, h // attention.group) not in method.streaming:
                continue
            for i, query in enumerate(queries):
                part = {
                    "all": True,
                    "decode": query >= start,
                    "answer": query >= start - 1,
                    "prefill": query < start,
                }[method.part]
                for j, key in enumerate(attention.key_positions[b].tolist()):
                    if part and key >= method.sink and query - key >= method.window:
                        out[b, h, i, j] = 0
    return out / out.sum(-1, keepdim=True).clamp(min=1e-300)
