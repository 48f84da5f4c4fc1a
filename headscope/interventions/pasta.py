from dataclasses import dataclass, field
from math import isfinite, log
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import Span


@dataclass(frozen=True)
class Pasta(_Reweighing):
    """Steer attention to a marked span: weaken every other key of the prompt by one factor.

    A'[i, j] ∝ alpha · A[i, j] for prompt keys j outside the span, as log(alpha) in the logits.
    Keys of the answer keep their weight. The sink outside the span is weakened too, which is most
    of what changes on models that park attention there. Of several ranges none weakens another.
    Where nobody said how long the prompt is, all keys belong to it.

    Source: Zhang et al. 2023, "Tell Your Model Where to Attend", arXiv 2311.02262, equation 2, in
    the form of the released code ("exclude", pre-softmax). Heads come from any head map.

    Attributes:
        span: what is marked: the name of a span, (start, stop) in tokens, or several of them.
        alpha: the factor, above 0 and at most 1; 0.01 in the paper.
        heads, layers, part: which heads and rows steer; all if left out.
    """

    paper = "Zhang et al. 2023, arXiv 2311.02262"
    marked: ClassVar[tuple[str, ...]] = ("span",)
    span: Span
    alpha: float = field(default=0.01, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isfinite(self.alpha) and 0 < self.alpha <= 1):
            raise HeadscopeError(
                f"{type(self).__name__} weakens what is not marked by a factor alpha with "
                f"0 < alpha <= 1, not {self.alpha}."
            )

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        rest = ~self._keys(attention, self.span)
        assert attention.run is not None
        if attention.run.prompt_length is not None:
            start = attention.run.prompt_length.to(rest.device)[:, None, None]
            rest = rest & (attention.keys_by_head() < start)
        return self._biased(attention, rest, log(self.alpha), where)
