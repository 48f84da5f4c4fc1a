import math
from functools import cache

import oracle
import torch
from tiny import reference_model
from torch import Tensor
from transformers import PreTrainedModel

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.sir_llm import SirLLM
from headscope.model import HeadModel
from headscope.stack import Attend


def methods(model: HeadModel) -> list[SirLLM]:
    return [SirLLM(1, 2, 4), SirLLM(0, 3, 3, 0.8), SirLLM(2, 4, 0)]


@cache
def eager(width: int) -> PreTrainedModel:
    """The model by itself; the two that are tested differ in the width of their heads."""
    return reference_model("llama" if width == 8 else "qwen3")


def by_hand(method: SirLLM):
    """One mask for the whole text, a row a token; the model alone says how likely tokens were."""
    seen: list[list[set[int]]] = []  # of each sequence, the slots that each row sees

    def attend(attention: Attention, _: Attend) -> Attended:
        if attention.layer == 0:
            if attention.run.step == 0:
                seen.clear()
                seen.extend([] for _ in range(len(attention.q)))
            plan(method, attention, seen)
        mask = table(seen, attention.n_keys)[:, -attention.n_queries :]
        hidden = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
        dense = oracle.dense(attention, hidden[:, None])
        return Attended(dense.z.to(attention.v.dtype), attention)

    return attend


def table(seen: list[list[set[int]]], n: int) -> Tensor:
    rows = [[[slot in row for slot in range(n)] for row in each] for each in seen]
    return torch.tensor(rows)


def plan(method: SirLLM, attention: Attention, seen: list[list[set[int]]]) -> None:
    """Which slots each new row sees: what was held after the pass before, and the new ones."""
    done, n = len(seen[0]), attention.n_keys
    positions = attention.key_positions.tolist()
    nats = surprise(attention, seen, done) if done else None
    for b, at in enumerate(positions):
        real = {slot for slot in range(n) if at[slot] >= 0}
        held = set[int]()
        if nats is not None:
            held = keep(method, nats[b], at, seen[b][-1], done - 1)
        for row in range(done, n):
            seen[b].append(held | {slot for slot in real if done <= slot <= row})


def keep(method: SirLLM, nats: list[float], at: list[int], held: set[int], last: int) -> set[int]:
    edges = {s for s in held if at[s] < method.sink or at[s] > at[last] - method.recent}
    rest = {
        s: (nats[s] if at[s] > 0 else 0.0) * math.pow(method.decay, at[last] - at[s])
        for s in held - edges
    }
    return edges | set(sorted(rest, key=lambda s: -rest[s])[: method.top])


def surprise(attention: Attention, seen: list[list[set[int]]], done: int) -> list[list[float]]:
    model = eager(attention.q.shape[-1])
    tokens, mask = attention.run.token_ids[:, :done], table(seen, done)[:, None]
    least = torch.finfo(torch.float32).min
    positions = attention.key_positions[:, :done].clamp(min=0)
    allowed = torch.zeros(mask.shape).masked_fill(~mask, least)
    logits = model(tokens, attention_mask=allowed, position_ids=positions).logits
    logp = logits.double().log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return [[0.0, *row] for row in (-logp).tolist()]
