from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.blocks import wide
from headscope.model import HeadModel
from headscope.probes.gradients import differentiated, need_gradients
from headscope.probes.study import Bill, Work, _Study, mean_tokens
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class Importance(_Study):
    """How much the answer's likelihood depends on a head, by its gradient.

    If every output z of head h were multiplied by a gate xi_h, which is 1, then for one prompt

        importance = |dL / dxi_h| = |sum over positions and dimensions of z_h . dL / dz_h|,

    in nats, 0 or more; the score is its mean over prompts. L is the negative log-likelihood of the
    answer's tokens, summed, each behind those before it; tokens of the prompt have no loss. The
    absolute value is taken of each prompt by itself, so that a head which helps some answers and
    harms others counts. It is a first-order estimate: a head that attends with all of its weight
    passes no gradient on to the heads that told it where, and they score less than ablation shows.

    `importance_in_layer` is the same divided by the L2 norm of the mean scores of all heads of the
    layer, in [0, 1] on average: the paper's own, with which it compares heads of all layers. Rows
    of one study share the norm, so that their mean is the paper's number; an interval takes the
    norm as known.

    A prompt costs one forward and one backward pass, which keeps the activations of every layer.

    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv 1905.10650,
    section 4.1, equation (2). The loss over answers, and scores without the norm, are headscope's
    own choice. A known port adds up the gradients of its steps before it takes absolute values;
    here every prompt has gradients of its own.
    """

    paper = "Michel et al. 2019, arXiv 1905.10650"
    answers = "differentiates the likelihood of an answer"
    scores: ClassVar[Mapping[str, str]] = {
        "importance_in_layer": "the same over the L2 norm of the layer's heads, as in the paper"
    }
    prompts: PromptFamily = field(default_factory=lambda: Needle(samples=24, lengths=(256, 512)))

    def check_model(self, model: HeadModel) -> None:
        need_gradients(self.name, model)

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        tokens = mean_tokens(prompts, answered=True)
        also = "the activations of a whole pass in memory"
        return Bill(len(prompts), len(prompts), tokens, also)

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        def make(index: int) -> dict[str, np.ndarray]:
            return {self.name: importance(model, prompts[index]).numpy()}

        parts = work.each(len(prompts), make)
        found = torch.from_numpy(np.stack([part[self.name] for part in parts]))
        return {self.name: found, "importance_in_layer": found / layer_norms(found.mean(0))}


def importance(model: HeadModel, prompt: Prompt) -> Float[Tensor, "layer head"]:
    """|dL / dxi| of every head on one prompt, in nats, of the model as it is in this scope.

    A head that is ablated has 0.
    """
    return torch.stack(
        [
            (wide(layer.z) * wide(layer.slope)).sum((0, 2, 3)).abs().cpu()
            for layer in differentiated(model, prompt)
        ]
    )


def layer_norms(scores: Float[Tensor, "layer head"]) -> Float[Tensor, "layer 1"]:
    """The L2 norm of each layer's heads; a layer of zeros keeps them."""
    return scores.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
