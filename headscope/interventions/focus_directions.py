from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.heads import label, parse_heads
from headscope.interventions.directions import Directions
from headscope.interventions.reweighing import _Reweighing

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True, eq=False)
class FocusDirections(_Reweighing):
    """Add a trained vector to the queries of contextual heads, so that they look at what matters.

    q' = q + factor · d after rotation, on the first `count` heads of the directions; all other
    heads stay. The paper trains a vector for the keys too. One vector added to all rotated keys of
    a head shifts all logits of a row by the same scale · q · d_k, which the softmax does not see:
    it has no effect and no gradient, so that there is none here. (It would count where logits are
    capped or a sink is learned, before rotation, or on some keys alone.)

    Source: Zhu et al. 2025, "Focus Directions Make Your Language Models Pay More Attention to
    Relevant Contexts", arXiv 2503.23306 (in the released code 20 heads and factors of 0.2 or 0.3).

    Attributes:
        directions: from `Directions.train(model, prompts, heads)` or `Directions.load`.
        factor: what they are multiplied by; 0 changes nothing, and much above 1 breaks heads.
        count: how many of the heads, most contextual first; all of them if left out.
        heads, layers, part: only those of the directions' heads; all rows if left out.
    """

    paper = "Zhu et al. 2025, arXiv 2503.23306"
    files: ClassVar[Mapping[str, type[Any]]] = {"directions": Directions}
    directions: Directions
    factor: float = field(default=0.3, kw_only=True)
    count: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.directions, Directions):
            raise HeadscopeError(
                "FocusDirections needs directions=Directions.train(model, prompts, heads), or "
                "Directions.load(path)."
            )
        if not isfinite(self.factor):
            raise HeadscopeError(f"FocusDirections needs a finite factor, not {self.factor}.")
        most = len(self.directions.heads)
        if self.count is not None and not 0 <= self.count <= most:
            raise HeadscopeError(
                f"These directions are of {most} heads; use a count from 0 to {most}, not "
                f"{self.count}."
            )

    def check(self, model: "HeadModel") -> None:
        super().check(model)
        self.directions.facts.check(model, "The directions were")
        known = self.directions.heads
        strange = [head for head in parse_heads(self.heads or ()) if head not in known]
        if strange:
            raise HeadscopeError(
                f"There is no direction for {label(strange[0])}: these were trained for "
                f"{', '.join(map(label, known))}; name heads among them, or train more."
            )

    def _where(self, attention: Attention) -> Bool[Tensor, "#batch head #query"] | None:
        used = self.directions.heads[: self.count]
        if not any(layer == attention.layer for layer, _ in used) or self.factor == 0:
            return None
        return super()._where(attention)

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        shift = torch.zeros(attention.n_heads, attention.q.shape[-1]).to(attention.q)
        for q, (layer, head) in zip(
            self.directions.q[: self.count], self.directions.heads[: self.count], strict=True
        ):
            if layer == attention.layer:
                shift[head] = self.factor * q.to(attention.q)
        moved = attention.q + shift[:, None]
        return attention.with_q(torch.where(where[..., None], moved, attention.q))
