from typing import cast

import torch
from torch import Tensor

from definitions import Case
from headscope.model import HeadModel


def define(case: Case) -> dict[str, list[float]]:
    a, W_O = case.attention, case.model.weights(case.attention.layer).W_O.double()
    found = []
    for head, p in enumerate(case.pattern):
        score = 0.0
        for i in case.rows:
            for j in range(i + 1):
                written = a.v[0, head // a.group, j].double() @ W_O[head]
                logit = float(before_norm(case.model, written)[case.tokens[i + 1]])
                score += float(p[i, j]) * (logit if 4 <= j < 19 else -logit)
        found.append(score / len(case.rows))
    return {"locos": found}


def before_norm(model: HeadModel, x: Tensor) -> Tensor:
    """Logits [vocab] of a part of the residual stream, the final norm's scale and bias left out."""
    gain = cast(Tensor, model.final_norm.weight).double()
    if "Gemma" in type(model.hf).__name__:
        gain = 1 + gain
    if isinstance(model.final_norm, torch.nn.LayerNorm):
        x = x - x.mean()
    return (x * gain) @ model.unembed.double()
