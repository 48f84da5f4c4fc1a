from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.questions import Questions
from headscope.model import HeadModel
from headscope.probes.study import Bill, Work, _Study, mean_tokens
from headscope.prompts.base import Prompt, PromptFamily
from headscope.signal_tracing import Traced, Tracer, check_settings, need_signals


@dataclass(frozen=True)
class QkSignals(_Study):
    """How much of what later heads match by did this head write (traced QK signals).

    A head fires at query i and key j > 0 if A_ij > `attention` and its logit, before a soft-cap,
    is positive. By the SVD of the head's QK map (see `qk_spectrum`) that logit is the sum of
    sigma_k ([X_i, 1] . u_k)([X_j, 1] . v_k) over k; the smallest set of terms that reaches `share`
    of it is the firing's signal, of S logits. X is linear in what was written to the residual
    stream, the norm's scale taken as it was: so S is, on the query side as on the key side, a sum
    over all that was written at i, or at j: by heads, MLPs, embeddings and biases. With g_Q and g_K
    what this head gave to it, and sums over all firings of heads of later layers in one prompt,

        score = sum (g_Q + g_K) / (2 sum S), about [0, 1]; below 0 for what speaks against firings.

    0 where no later head fires, so in the last layer. `qk_received` is the same share of a head's
    own signals that heads wrote, of all earlier layers together; `qk_terms` the mean number of
    terms of its signals; `qk_firings` its firings per row. All are 0 in a prompt where a head does
    not fire. Shares weigh firings by their logits, since a firing of next to no logit has a share
    without meaning. `headscope.signals.trace_signals` gives the edges between pairs of heads.

    Models with rotary positions are refused: their QK maps depend on the distance.

    Source: Franco & Crovella 2024, "Sparse Attention Decomposition Applied to Circuit Tracing",
    arXiv 2410.00340, and its code: firings, SVD and terms, with a share of 0.7 as the default of
    their function. To sum what a head gives by logits and over both sides is headscope's own.

    Attributes:
        share: of the logit that a signal reaches, more than 0 and at most 1.
        attention: weight above which a key is attended to, 0.5 or more and below 1.
    """

    paper = "after Franco & Crovella 2024, arXiv 2410.00340"
    scores: ClassVar[Mapping[str, str]] = {
        "qk_received": "share of the head's own signals that earlier heads wrote",
        "qk_terms": "terms that make up a signal of the head, on average",
        "qk_firings": "firings of the head per row",
    }
    prompts: PromptFamily = field(default_factory=lambda: Questions(samples=32, tasks=("ioi",)))
    share: float = 0.7
    attention: float = 0.5

    def __post_init__(self) -> None:
        check_settings("The probe 'qk_signals'", self.share, self.attention)

    def check_model(self, model: HeadModel) -> None:
        need_signals("the probe 'qk_signals'", model)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) < 2:
            raise HeadscopeError(
                "the probe 'qk_signals' leaves the first token out and needs another one; use "
                "longer prompts."
            )

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        also = f"the SVD of {len(model.heads)} QK maps, held in the size of W_Q and W_K"
        return Bill(len(prompts), 0, mean_tokens(prompts), also)

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        inputs = need_signals("the probe 'qk_signals'", model)
        tracer = Tracer(model, inputs, self.share, self.attention)

        def make(index: int) -> dict[str, np.ndarray]:
            traced = tracer.trace(list(prompts[index].token_ids))
            scores = self._scores(traced, len(prompts[index]))
            return {name: score.cpu().numpy() for name, score in scores.items()}

        parts = work.each(len(prompts), make)
        return {
            name: torch.from_numpy(np.stack([part[name] for part in parts]))
            for name in self.outputs()
        }

    def _scores(self, traced: Traced, rows: int) -> dict[str, Float[Tensor, "layer head"]]:
        tiny = torch.finfo(traced.signal.dtype).tiny
        by_layer = traced.signal.sum(1)
        later = by_layer.flip(0).cumsum(0).flip(0) - by_layer
        sent, received = traced.given.sum((0, 3, 4)), traced.given.sum((0, 1, 2))
        return {
            self.name: sent / (2 * later).clamp(min=tiny)[:, None],
            "qk_received": received / (2 * traced.signal).clamp(min=tiny),
            "qk_terms": traced.terms / traced.firings.clamp(min=1),
            "qk_firings": traced.firings / (rows - 1),
        }
