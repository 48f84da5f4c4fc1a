import math

from definitions import Case
from headscope.model import HeadModel

LENGTH = 60
PARAMETERS = {"length": LENGTH}


def FITS(model: HeadModel) -> bool:
    return model.hf.config.model_type not in ("gpt2", "opt")


def define(case: Case) -> dict[str, list[float]]:
    a, here = case.attention, case.reading.token_ids.new_tensor
    assert a.rope is not None
    q = a.rope.unrotate(a.q, a.query_positions).mean(2, keepdim=True)
    k = a.rope.unrotate(a.k, a.key_positions).mean(2, keepdim=True)
    last = a.rope.rotate(q, here([[LENGTH - 1]]))[0, :, 0].double()
    keys = [a.rope.rotate(k, here([[j]]))[0, :, 0].double() for j in range(LENGTH)]
    found = []
    for head in range(a.n_heads):
        logits = [float(last[head] @ key[head // a.group]) * a.scale for key in keys]
        if a.softcap is not None:
            logits = [a.softcap * math.tanh(x / a.softcap) for x in logits]
        seen = a.window or LENGTH
        weights = [math.exp(x) if LENGTH - 1 - j < seen else 0.0 for j, x in enumerate(logits)]
        total = sum(weights)
        if a.sink_logits is not None:
            total += math.exp(float(a.sink_logits[head]))
        found.append(sum(sum(weights[: j + 1]) / total for j in range(LENGTH)) / LENGTH)
    return {"duo_onthefly": found}
