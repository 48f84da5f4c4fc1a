import dataclasses

import oracle
import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.model import HeadModel
from headscope.prompts import Prompt, Repeated

BOS = 1  # of the tiny tokenizer, which has no chat template: what follows the user is all answer
WINDOW = 3


class _Turns(Repeated):
    """Repeated tokens with a user's turn within; one word of a template before it."""

    def prompt(self, index: int, tokenizer: object) -> Prompt:
        whole = super().prompt(index, tokenizer)
        return dataclasses.replace(whole, spans={"user": (2, len(whole) - 5)})


PARAMETERS = {"window": WINDOW, "prompts": _Turns(samples=3, block=20, times=2)}


def define(model: HeadModel, prompt: Prompt) -> dict[str, Tensor]:
    ids = list(prompt.token_ids)
    low, high = prompt.spans["user"]
    user, answer = range(low, high), range(high, len(ids))
    chat = patterns(model, ids)
    bare = patterns(model, [BOS, *ids[low:]])
    return {
        "context_awareness": torch.tensor([[mass(p, user) for p in h] for h in chat]),
        "context_awareness_share": torch.tensor(
            [[mass(p, user) / mass(p, [0, *user, *answer]) for p in h] for h in chat]
        ),
        "context_awareness_bare": torch.tensor(
            [[mass(p, range(1, 1 + len(user))) for p in h] for h in bare]
        ),
    }


def mass(pattern: list[list[float]], keys: range | list[int]) -> float:
    return sum(row[key] for row in pattern[-WINDOW:] for key in keys) / WINDOW


def patterns(model: HeadModel, ids: list[int]) -> list[list[list[list[float]]]]:
    seen: list[Attention] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model(ids)
    return [oracle.dense(attention).pattern[0].tolist() for attention in seen]
