from dataclasses import dataclass, field
from math import inf, isfinite, log
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.following import _Following
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.sinks import hidden, sinks_of

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class ACT(_Following, _Reweighing):
    """Attention calibration: take attention from the sinks in the middle of a prompt.

    A key is a sink of a head where its column's mean over the rows that see it is above
    `threshold`; the first sink is spared. Every row gives its sinks `beta` of what they had, and
    what is freed goes to the other keys in proportion to what they have:

        A'[i, j] = beta A[i, j] for j in S;   A'[i, j] = A[i, j] (1 + (1 − beta) m_i / r_i) else,

    with m_i the attention on S and r_i that on the keys that receive. Exact in the logits:
    log(beta) on S and log1p((1 − beta) m_i / r_i) on the receivers. A row without receivers stays
    as it is. Sinks are found by the first pass over the prompt and stay the same after it.

    Source: Yu et al. 2024, "Unveiling and Harnessing Hidden Attention Sinks", arXiv 2406.15765. The
    released code uses a threshold of 0.1 (the paper 5 / length), beta 0.4, and lets the first token
    receive, where most of the freed attention then goes: `first_receives=False` gives it to the
    rest instead, which is headscope's addition. `headscope.evals.act_heads` selects heads.

    Attributes:
        beta: what sinks keep, from 0 to 1; 1 changes nothing.
        threshold: of a sink's mean attention, between 0 and 1.
        first_receives: whether the spared sink gets its share of what is freed.
        skip: first layers that are left alone, as in the paper.
        heads, layers, part: which heads and rows; all if left out.
    """

    paper = "Yu et al. 2024, arXiv 2406.15765"
    causal: ClassVar[bool] = False
    stateful: ClassVar[bool] = True
    beta: float = field(default=0.4, kw_only=True)
    threshold: float = field(default=0.1, kw_only=True)
    first_receives: bool = field(default=True, kw_only=True)
    skip: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("beta", self.beta), ("threshold", self.threshold)):
            if not (isfinite(value) and 0 <= value <= 1):
                raise HeadscopeError(f"ACT needs a {name} from 0 to 1, not {value}.")
        if self.skip < 0:
            raise HeadscopeError(f"ACT cannot skip {self.skip} layers; use 0 or more.")

    def check(self, model: "HeadModel") -> None:
        super().check(model)
        if self.skip > model.layers[-1]:
            raise HeadscopeError(
                f"ACT would skip all {model.n_layers} layers of {model.name}; use a smaller skip."
            )

    def _where(self, attention: Attention) -> Bool[Tensor, "#batch head #query"] | None:
        return super()._where(attention) if attention.layer >= self.skip else None

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        found = sinks_of(attention, self.threshold, self)
        sinks = hidden(found)
        receivers = ~found if not self.first_receives else ~sinks
        freed = (1 - self.beta) * attention.mass(sinks)
        free = attention.mass(receivers)
        where = where & (free > 0) & (freed > 0)
        more = torch.where(where, freed / free, 0).log1p()
        less = log(self.beta) if self.beta else -inf
        return self._biased(self._biased(attention, sinks, less, where), receivers, more, where)
