"""Every score of every probe once more, from a dense pattern, head by head and pair by pair.

One module a probe, of the probe's name. Its `define(case)` gives what the probe has to give, by
name of score or curve, computed in the plainest way that its docstring allows. `PARAMETERS` are the
probe's fields that suit a prompt of a few dozen tokens, and `FITS(model)` says which of the tiny
models the probe can be measured on, where it is not all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import oracle
import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.prompts import Prompt, Repeated

REPEATED = Repeated(samples=3, block=30, times=4)
# A prompt of 38 tokens and an answer of 6, few enough words that many occur again.
SPANS = {
    "needle": (4, 19), "answer": (7, 15), "question": (31, 38), "user": (3, 34), "gold": (10, 17),
    **{f"doc_{i}": (3 + 7 * i, 10 + 7 * i) for i in range(4)},
    **{f"sentence_{i}": span for i, span in enumerate([(1, 4), (4, 19), (19, 26), (26, 31)])},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One layer of one model on one prompt and its answer, all of it in one pass.

    Attributes:
        pattern: [head, query, key] float64.
        z: [head, query, dv] float64.
        tokens: the ids of all of it.
        rows: the rows that made the answer.
    """

    attention: Attention
    pattern: Tensor
    z: Tensor
    tokens: list[int]
    rows: range
    reading: Reading
    model: HeadModel


def module(name: str) -> ModuleType:
    """What is written down about the probe of a name."""
    return import_module(f"definitions.{name}")


def as_measured(kind: type[Probe]) -> Probe:
    """A probe with the parameters that suit the tiny models."""
    parameters: Mapping[str, Any] = getattr(module(kind.name), "PARAMETERS", {})
    return kind(**{"prompts": REPEATED, **parameters})


def fits(name: str, model: HeadModel) -> bool:
    rule: Callable[[HeadModel], bool] = getattr(module(name), "FITS", lambda _: True)
    return rule(model)


def a_prompt() -> tuple[list[int], Prompt]:
    """Tokens of a prompt and its answer, and the prompt with every span that probes ask for."""
    tokens = torch.randint(3, 20, (44,), generator=torch.Generator().manual_seed(0)).tolist()
    return tokens, Prompt(tuple(tokens[:38]), SPANS, "", tuple(tokens[38:]))


def cases(model: HeadModel) -> list[Case]:
    """Every layer of a model on that prompt, the tokens after it taken for its response."""
    tokens, prompt = a_prompt()
    ids = torch.tensor(tokens)
    rows = range(len(prompt) - 1, len(ids) - 1)
    seen: list[Attention] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model(ids[None])
    reading = Reading(prompt, model, ids, torch.tensor(prompt.answer_ids), torch.tensor(rows))
    found = []
    for attention in seen:
        dense = oracle.dense(attention)
        case = Case(attention, dense.pattern[0], dense.z[0], tokens, rows, reading, model)
        found.append(case)
    return found
