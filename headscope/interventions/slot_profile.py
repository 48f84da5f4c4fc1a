"""What attention the slots of a model's prompts get, whatever stands in them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field

from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions.document_attention import (
    document_attention,
    document_spans,
    over_heads,
    standing,
)
from headscope.kept import Kept
from headscope.prompts.base import Prompt
from headscope.prompts.documents import Documents

if TYPE_CHECKING:
    from headscope.model import HeadModel

SCHEMA = 1


class SlotProfile(Kept):
    """Mean attention of a prompt's last token on the document in each slot, of one model.

    b_k = mean over prompts, over all heads of some layers, of the sum over j in the document in
    slot k of A[last, j], divided by its tokens. What documents say averages out where each stands
    in each slot equally often, as in the prompts of the family `documents`.

    Attributes:
        values: b, by slot.
        model_name, fingerprint: of the model that it was measured on.
        layers: whose heads were averaged.
        prompts: how many were read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    again: ClassVar[str] = "measure the profile again"

    schema_version: int = Field(default=SCHEMA, le=SCHEMA)
    kind: Literal["slot_profile"] = "slot_profile"
    values: tuple[float, ...] = Field(min_length=1)
    model_name: str
    fingerprint: str
    layers: tuple[int, ...]
    prompts: int

    @classmethod
    def measure(
        cls,
        model: "HeadModel",
        prompts: Sequence[Prompt] | None = None,
        layers: Sequence[int] | None = None,
        documents: str = "doc",
        slots: int = 8,
        seed: int = 0,
    ) -> "SlotProfile":
        """Read prompts once each.

        Args:
            prompts: with documents of one kind in balanced orders, and none of the test's; two
                such rounds of the family `documents` on the split "tune" if left out.
            layers: whose heads are averaged; all of them if left out.
            documents: the documents are the spans of this name.
            slots, seed: of the prompts that are made where none are given.

        Raises:
            HeadscopeError: no prompts, no such layer, or prompts of different numbers of documents.
        """
        if prompts is None:
            family = Documents(samples=2 * slots, seed=seed, documents=slots, split="tune")
            prompts = family.prompts(model.tokenizer)
        chosen = tuple(model.layers if layers is None else layers)
        missing = [layer for layer in chosen if layer not in model.layers]
        if missing or not chosen:
            raise HeadscopeError(
                f"A slot profile is the mean over one layer or more of {model.name}, which run "
                f"from {model.layers[0]} to {model.layers[-1]}; {list(chosen)} is none of them."
            )
        heads: list[Head] = [(layer, head) for layer in chosen for head in range(model.n_heads)]
        found: list[torch.Tensor] = []
        for prompt in prompts:
            spans = document_spans(prompt, documents, "A slot profile")
            every = document_attention(model, [prompt.token_ids], spans)
            found.append(over_heads(model, every, heads)[0][standing(spans)])
        counts = sorted({len(slots) for slots in found})
        if len(counts) != 1:
            raise HeadscopeError(
                "A slot profile needs prompts that all have the same number of documents, one "
                f"prompt at least; these have {' or '.join(map(str, counts)) or 'none'}."
            )
        values = tuple(torch.stack(found).mean(0).tolist())
        return cls(
            values=values,
            model_name=model.name,
            fingerprint=model.fingerprint,
            layers=chosen,
            prompts=len(found),
        )

    def check(self, model: "HeadModel") -> None:
        """Refuse another model than the one that it was measured on.

        Raises:
            HeadscopeError: it names both.
        """
        if model.fingerprint != self.fingerprint:
            raise HeadscopeError(
                f"The slot profile was measured on {self.model_name}, and this is {model.name} "
                "with other weights; measure one with SlotProfile.measure(model)."
            )
