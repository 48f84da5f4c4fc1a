"""What methods share that edit chosen heads, the same ones everywhere or others in each row."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head, by_layer, check_heads, parse_heads
from headscope.interventions.base import Intervention
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _ByHead(Intervention):
    """A method that acts on some heads; a subclass says how, in `_edit`.

    Attributes:
        heads: (layer, head) pairs or names like "L17H3"; none of them is a no-op.
    """

    heads: Sequence[Head | str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", parse_heads(self.heads))

    def check(self, model: "HeadModel") -> None:
        check_heads(parse_heads(self.heads), model.layers, model.n_heads, model.name)

    @abstractmethod
    def _edit(
        self, attention: Attention, attend: Attend, chosen: Bool[Tensor, "#batch head"]
    ) -> Attended:
        """Act on the chosen heads of one layer, for each row of the batch or for all alike."""

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        return self._around(attention, attend, [by_layer(parse_heads(self.heads))])

    @staticmethod
    @contextmanager
    def rowwise(model: "HeadModel", rows: Sequence["_ByHead"]) -> Iterator["HeadModel"]:
        """A scope in which rows[b] acts on row b of every batch.

        Args:
            rows: recipes that differ in their heads alone, one for each row.

        Raises:
            HeadscopeError: they differ in more, or do not fit the model.
        """
        first = rows[0]
        if any(row._recipe() != first._recipe() for row in rows):
            raise HeadscopeError("Interventions of one batch differ in their heads alone.")
        for row in rows:
            row.check(model)
        heads = [by_layer(parse_heads(row.heads)) for row in rows]
        with model.entered(lambda attention, attend: first._around(attention, attend, heads)):
            yield model

    def _recipe(self) -> tuple[Any, ...]:
        """All that it is but its heads."""
        return (type(self), *(getattr(self, f.name) for f in fields(self) if f.name != "heads"))

    def _around(
        self, attention: Attention, attend: Attend, heads: Sequence[dict[int, list[int]]]
    ) -> Attended:
        if not any(attention.layer in layers for layers in heads):
            return attend(attention)
        chosen = torch.zeros(len(heads), attention.n_heads, dtype=torch.bool)
        for row, layers in enumerate(heads):
            chosen[row, layers.get(attention.layer, [])] = True
        return self._edit(attention, attend, chosen.to(attention.q.device))
