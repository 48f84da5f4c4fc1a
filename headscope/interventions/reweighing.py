"""What methods share that reweigh attention on sets of keys, for some heads, layers and rows."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.edits import Keys
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head, check_heads, parse_heads
from headscope.interventions.base import Intervention
from headscope.interventions.parts import _InPart
from headscope.interventions.spans import Span, checked_span, keys_in, named
from headscope.prompts.base import Prompt
from headscope.run import Part
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _Reweighing(_InPart, Intervention):
    """A method that passes on a changed attention; a subclass says how, in `_changed`.

    Attributes:
        heads: (layer, head) pairs or names like "L17H3"; all heads if left out, and none of them
            is a no-op.
        layers: only heads of these layers; all layers if left out.
        part: rows that it acts on, as in `Ablate`.
    """

    marked: ClassVar[tuple[str, ...]] = ()  # fields that are spans
    heads: Sequence[Head | str] | None = field(default=None, kw_only=True)
    layers: Sequence[int] | None = field(default=None, kw_only=True)
    part: Part = field(default="all", kw_only=True)

    def __post_init__(self) -> None:
        if self.heads is not None:
            object.__setattr__(self, "heads", parse_heads(self.heads))
        if self.layers is not None:
            layers = [self.layers] if isinstance(self.layers, int) else self.layers
            object.__setattr__(self, "layers", tuple(layers))
        self._check_part()
        for name in self.marked:
            if getattr(self, name) is not None:
                span = checked_span(getattr(self, name), type(self).__name__)
                object.__setattr__(self, name, span)

    def check(self, model: "HeadModel") -> None:
        if self.heads is not None:
            check_heads(parse_heads(self.heads), model.layers, model.n_heads, model.name)
        missing = [layer for layer in self.layers or () if layer not in model.layers]
        if missing:
            raise HeadscopeError(
                f"{model.name} has no attention layer {missing[0]}: they run from "
                f"{model.layers[0]} to {model.layers[-1]}."
            )

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple[Intervention, Prompt]:
        return named(self, prompt, *self.marked), prompt

    @abstractmethod
    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        """The attention with the chosen heads changed in the chosen rows."""

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        where = self._where(attention)
        return attend(attention if where is None else self._changed(attention, where))

    def _where(self, attention: Attention) -> Bool[Tensor, "#batch head #query"] | None:
        """The heads and rows of one layer that it acts on; None where there are none."""
        if self.layers is not None and attention.layer not in self.layers:
            return None
        heads = torch.ones(attention.n_heads, dtype=torch.bool, device=attention.q.device)
        if self.heads is not None:
            mine = [head for layer, head in parse_heads(self.heads) if layer == attention.layer]
            if not mine:
                return None
            heads = torch.zeros_like(heads)
            heads[mine] = True
        if self.part == "all":
            return heads[None, :, None]
        return self._rows(attention)[:, None] & heads[None, :, None]

    def _keys(self, attention: Attention, span: Span) -> Bool[Tensor, " batch #head key"]:
        """The keys of one layer in a marked span; errors as `keys_in`."""
        return keys_in(attention, span, type(self).__name__)

    @staticmethod
    def _biased(
        attention: Attention,
        keys: Keys,
        amount: Tensor | float,
        where: Bool[Tensor, "#batch head #query"],
    ) -> Attention:
        """Logits added to a set of keys, for the chosen heads and rows alone."""
        if not isinstance(amount, Tensor):
            wide = torch.promote_types(attention.q.dtype, torch.float32)
            amount = torch.tensor(amount, dtype=wide, device=where.device)
        return attention.with_bias(keys, torch.where(where, amount, torch.zeros_like(amount)))


def mass_outside(
    attention: Attention, keys: Bool[Tensor, " batch #head key"]
) -> Float[Tensor, "batch head query"]:
    """What each row gives to all else than a set of keys, a learned sink included."""
    rest = attention.mass(~keys)
    if attention.sink_logits is not None:
        rest = rest + (attention.sink_logits[:, None] - attention.lse()).exp()
    return rest
