"""Prompts and readings for tests of directions and of edits of what heads say."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.heads import Head
from headscope.interventions.base import Intervention
from headscope.interventions.directions import Directions
from headscope.interventions.output_directions import OutputDirections
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.stack import Attend

TOKENS = torch.randint(3, 97, (1, 24), generator=torch.Generator().manual_seed(3))


HEADS = ((1, 4), (0, 3), (1, 0))


def asked(seed: int, length: int = 20) -> Prompt:
    """Random tokens with a gold span somewhere, and an answer of two or three of them."""
    rng = random.Random(seed)
    ids = [rng.randrange(3, 97) for _ in range(length + rng.randrange(4))]
    start = rng.randrange(2, 10)
    answer = tuple(rng.randrange(3, 97) for _ in range(2 + seed % 2))
    return Prompt(tuple(ids), {"gold": (start, start + 4)}, "words", answer)


PROMPTS = [asked(seed) for seed in range(6)]


def seen(model: HeadModel, prompt: Prompt) -> dict[int, Attention]:
    """What each layer really computed while a prompt and its answer were read."""
    kept: dict[int, Attention] = {}

    def keep(attended: Attended) -> None:
        kept[attended.attention.layer] = attended.attention

    with torch.no_grad(), model.observed(keep):
        model.forward([*prompt.token_ids, *prompt.answer_ids[:-1]], prompt_length=len(prompt))
    return kept


def gold(attention: Attention, prompt: Prompt, head: int, d: Tensor) -> Tensor:
    """Attention of the answer's rows on the gold span, dense, in float64, with d added to q."""
    n = attention.n_queries
    logits = (attention.q[0, head].double() + d) @ attention.k[
        0, head // attention.group
    ].double().T
    logits = (logits * attention.scale).masked_fill(~torch.ones(n, n).bool().tril(), -torch.inf)
    return logits.softmax(-1)[len(prompt) - 1 :, slice(*prompt.span("gold"))].sum(-1).mean()


def trained(model: HeadModel) -> list[tuple[Directions | OutputDirections, list[str]]]:
    outputs = OutputDirections.train(model, sounding(0), sounding(1), count=3)
    focus = Directions.train(model, PROMPTS, HEADS, epochs=1)
    return [(focus, ["q"]), (outputs, ["theta", "sigma"])]


def sounding(kind: int, count: int = 30) -> list[Prompt]:
    """Prompts that hold one token again and again, another for each kind; they end alike."""
    rng = random.Random(kind)
    words = (50, 60)
    return [
        Prompt((*(rng.choice((words[kind], rng.randrange(3, 97))) for _ in range(11)), 7))
        for _ in range(count)
    ]


def last_z(model: HeadModel, prompts: Sequence[Prompt]) -> dict[Head, Tensor]:
    rows: dict[Head, list[Tensor]] = {head: [] for head in model.heads}

    def keep(attended: Attended) -> None:
        for head in range(model.n_heads):
            rows[attended.attention.layer, head].append(attended.z[0, head, -1].double())

    with model.observed(keep):
        for prompt in prompts:
            model.forward(list(prompt.token_ids))
    return {head: torch.stack(z) for head, z in rows.items()}


def said(model: HeadModel, method: Intervention, layer: int) -> tuple[Tensor, Tensor]:
    """z of one layer before and after a method's edit, in the same pass."""
    before, after = list[Tensor](), list[Tensor]()

    def outside(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        if attention.layer == layer:
            after.append(attended.z[0].double())
        return attended

    def inside(attended: Attended) -> None:
        if attended.attention.layer == layer:
            before.append(attended.z[0].double())

    with model.entered(outside), method(model), model.observed(inside):
        model(TOKENS)
    return before[0], after[0]
