"""ACT on one head at a time: what its hidden sinks hold on a question, what calibrating it does."""

from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.evals.base import Item
from headscope.evals.scoring import scored
from headscope.interventions.act import ACT
from headscope.interventions.sinks import hidden, sinks_in
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


@torch.no_grad()
def hidden_mass(model: HeadModel, prompt: Prompt, threshold: float) -> Float[Tensor, "layer head"]:
    """Attention on the keys that ACT takes from, mean over rows; 0 exactly where there are none.

    Those of the model as it is: a head that is calibrated alone sees the same.
    """
    found: list[Tensor] = []

    def observe(attended: Attended) -> None:
        attention = attended.attention
        sinks = hidden(sinks_in(attention, threshold))
        found.append(attention.mass(sinks)[0].mean(-1).cpu())

    with model.observed(observe):
        model.forward(list(prompt.token_ids), prompt_length=len(prompt), last=1)
    return torch.stack(found)


def answered(model: HeadModel, item: Item, method: ACT | None = None) -> tuple[float, float]:
    """How well a question is answered: nats, and 1 where the answer is right.

    Nats of the metric: the margin of a choice, else the log-probability of the answer. The model as
    it is reads the answer token by token too, as ACT has to: passes of another kind round
    otherwise.

    Args:
        method: what is in force, if anything.
    """
    with nullcontext() if method is None else method(model):
        (score,) = scored(model, replace(item, chunk=1))
    return score.logp if score.margin is None else score.margin, float(score.exact)
