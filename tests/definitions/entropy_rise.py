from math import log

import oracle
import torch
from torch import Tensor

from definitions.marked import MARKED
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.prompts import Prompt

PARAMETERS = {"prompts": MARKED}


def define(model: HeadModel, prompt: Prompt) -> dict[str, Tensor]:
    plain, apart = _entropies(model, prompt, False), _entropies(model, prompt, True)
    return {"entropy_rise": torch.tensor(apart) - torch.tensor(plain)}


def _entropies(model: HeadModel, prompt: Prompt, apart: bool) -> list[list[float]]:
    """[layer][head], every layer computed from dense patterns."""
    layers = []
    start, stop = prompt.span("question")

    def dense(attention: Attention, attend: object) -> Attended:
        hidden = torch.zeros(len(prompt), len(prompt))
        for i in range(len(prompt)):
            for j in range(len(prompt)):
                mine, its = _document(prompt, i), _document(prompt, j)
                if apart and mine is not None and its is not None and mine != its:
                    hidden[i, j] = -torch.inf
        want = oracle.dense(attention, hidden)
        heads = []
        for p in want.pattern[0, :, start:stop].tolist():
            rest = [[1 - sum(row)] if attention.sink_logits is not None else [] for row in p]
            rows = [[*row, *more] for row, more in zip(p, rest, strict=True)]
            heads.append(-sum(x * log(x) for row in rows for x in row if x > 0) / len(rows))
        layers.append(heads)
        return Attended(want.z.to(attention.q.dtype), attention)

    with model.entered(dense):
        model(list(prompt.token_ids))
    return layers


def _document(prompt: Prompt, token: int) -> int | None:
    """Which document a token is in; what follows one before the next is of its own document."""
    documents = prompt.numbered("doc")
    begun = [m for m, (start, _) in enumerate(documents) if start <= token]
    return None if not begun or token >= documents[-1][1] else begun[-1]
