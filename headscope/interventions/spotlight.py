from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.reweighing import _Reweighing, mass_outside
from headscope.interventions.spans import Span

Per = Literal["row", "layer"]


@dataclass(frozen=True)
class Spotlight(_Reweighing):
    """Raise the attention on a marked span to a target where it is below.

    With c the attention on the span, a row with c < target gets log(target (1 − c) / (c (1 −
    target))) added to the span's logits, after which it gives the span exactly the target. The
    paper adds log(target / c) to the log of the pattern, which leaves target / (1 + target − c),
    less than was aimed at; `exact=False` is that. Rows that see nothing of the span, or nothing
    else, stay as they are.

    Source: Venkateswaran & Contractor 2025, "Spotlight Your Instructions", arXiv 2505.12025.
    There c is one number a layer and sample, the mean over heads and rows (`per="layer"`, not
    causal); the exact bias and its use for each head and row alone are headscope's.

    Attributes:
        span: what is marked: the name of a span, (start, stop) in tokens, or several of them.
        target: share of a row's attention, above 0 and below 1.
        per: whether c is measured for each row of each head, or once for a layer.
        exact: whether the bias is the one that meets the target.
        heads, layers, part: which heads and rows; all if left out.
    """

    paper = "Venkateswaran & Contractor 2025, arXiv 2505.12025"
    marked: ClassVar[tuple[str, ...]] = ("span",)
    span: Span
    target: float = field(default=0.2, kw_only=True)
    per: Per = field(default="row", kw_only=True)
    exact: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.target < 1:
            raise HeadscopeError(f"Spotlight needs a target between 0 and 1, not {self.target}.")
        if self.per not in get_args(Per):
            raise HeadscopeError(f"Spotlight has no per={self.per!r}; use row or layer.")
        if self.per == "layer":
            object.__setattr__(self, "causal", False)  # a row's bias depends on later rows

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        keys = self._keys(attention, self.span)
        inside, outside = attention.mass(keys), mass_outside(attention, keys)
        if self.per == "layer":
            real = (attention.query_positions >= 0)[:, None]
            inside, outside = self._mean(inside, real), self._mean(outside, real)
        # outside is summed on its own: 1 − inside loses its digits where the span has it all.
        amount = self.target * (outside if self.exact else 1.0) / inside
        if self.exact:
            amount = amount / (1 - self.target)
        low = (inside > 0) & (outside > 0) & (inside < self.target)
        return self._biased(attention, keys, amount.where(low, 1).log(), where)

    @staticmethod
    def _mean(
        mass: Float[Tensor, "batch head query"], real: Bool[Tensor, "batch 1 query"]
    ) -> Float[Tensor, "batch 1 1"]:
        total = (mass * real).sum((1, 2), keepdim=True)
        return total / (real.sum((1, 2), keepdim=True) * mass.shape[1]).clamp(min=1)
