import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.ablate import Ablate, Reference
from headscope.model import HeadModel
from headscope.prompts import Repeated
from headscope.stack import Attend

HEADS = ((0, 1), (1, 0), (1, 4), (2, 5))


def methods(model: HeadModel) -> list[Ablate]:
    prompts = Repeated(samples=2, block=20, times=2).prompts(model.tokenizer)
    kept = Reference.measure(model, prompts, size=16)
    return [
        Ablate(HEADS),
        Ablate(HEADS, "uniform"),
        Ablate(HEADS, "mean", "answer", kept),
        Ablate(HEADS, "resample", "prefill", kept),
    ]


def by_hand(method: Ablate):
    def attend(attention: Attention, _: Attend) -> Attended:
        dense = oracle.dense(attention)
        z, seen = dense.z.clone(), oracle.visible(attention).double()
        v = attention.v.double().repeat_interleave(attention.group, 1)
        even = seen / seen.sum(-1, keepdim=True).clamp(min=1) @ v
        for layer, head in method.heads:
            if layer != attention.layer:
                continue
            for b, row in enumerate(attention.query_positions.tolist()):
                for i, query in enumerate(row):
                    start = int(attention.run.prompt_length[b])
                    acts = {"all": True, "prefill": query < start, "answer": query >= start - 1}
                    if query >= 0 and acts[method.part]:
                        z[b, head, i] = instead(method, layer, head, query, even[b, head, i])
        return Attended(z.to(attention.v.dtype), attention)

    return attend


def instead(method: Ablate, layer: int, head: int, query: int, even: torch.Tensor) -> torch.Tensor:
    if method.mode == "zero":
        return torch.zeros_like(even)
    if method.mode == "uniform":
        return even
    if method.mode == "mean":
        return method.reference.mean[layer, head].double()
    return method.reference.bank[layer, query * 2654435761 % 16, head].double()
