"""Where the documents of a prompt stand, and the attention that its last token gives to them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.interventions.rewriting import rebuilt
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


def document_spans(
    prompt: Prompt, name: str, whose: str, what: str = "documents", made_by: str = "documents"
) -> list[Range]:
    """The documents of a prompt by their number: the spans name_0, name_1, ...

    Args:
        what: what they are called in errors, if they are not documents.
        made_by: a prompt family and eval whose prompts have them.

    Raises:
        HeadscopeError: there is none, one is empty or outside the prompt, or two overlap.
    """
    spans = prompt.numbered(name)
    if not spans:
        there = ", ".join(sorted(prompt.spans)) or "none"
        raise HeadscopeError(
            f"{whose} needs the {what} of a prompt as its spans {name}_0, {name}_1, ... (it has: "
            f"{there}); mark them, or use the prompts or the eval {made_by!r}."
        )
    for number, (start, stop) in enumerate(spans):
        if not 0 <= start < stop <= len(prompt):
            raise HeadscopeError(
                f"The span {name}_{number} is ({start}, {stop}) in a prompt of {len(prompt)} "
                f"tokens; {whose} needs {what} that lie in the prompt and hold a token."
            )
    order = standing(spans)
    for one, other in pairwise(order):
        if spans[one][1] > spans[other][0]:
            raise HeadscopeError(
                f"The spans {name}_{one} and {name}_{other} overlap; {whose} needs {what} "
                "that are apart."
            )
    return spans


def standing(spans: Sequence[Range]) -> list[int]:
    """The numbers of documents in the order in which they stand in the prompt."""
    return sorted(range(len(spans)), key=lambda number: spans[number])


def placed(prompt: Prompt, spans: Sequence[Range], order: Sequence[int]) -> Prompt:
    """The prompt with its documents in another order, and what is between them where it was.

    Args:
        order: the number of the document that comes to stand in each slot.
    """
    if list(order) == standing(spans):
        return prompt
    pieces, end = list[Range](), 0
    for (start, stop), number in zip(sorted(spans), order, strict=True):
        pieces += [(end, start), spans[number]]
        end = stop
    pieces.append((end, len(prompt)))
    return rebuilt(prompt, [(start, stop) for start, stop in pieces if start < stop])


def document_attention(
    model: "HeadModel", rows: Sequence[Sequence[int]], spans: Sequence[Range]
) -> Float[Tensor, "row layer head document"]:
    """Attention of each prompt's last token on each document, per token of the document.

    Args:
        rows: prompts of one length, which are read in one batch.
        spans: where the documents stand in all of them.
    """
    layers: list[Tensor] = []

    def read(attended: Attended) -> None:
        attention = attended.attention
        last = attention.rows([attention.n_queries - 1])[:, :, 0].float()
        keys = attention.keys_by_head()
        inside = [((keys >= start) & (keys < stop)) / (stop - start) for start, stop in spans]
        layers.append(torch.stack([(last * each).sum(-1) for each in inside], -1))

    with torch.no_grad(), model.observed(read):
        model.forward(torch.tensor([list(row) for row in rows]), last=1)
    return torch.stack([layer.cpu() for layer in layers], 1)


def over_heads(
    model: "HeadModel",
    found: Float[Tensor, "*row layer head document"],
    heads: Sequence[Head] | None,
) -> Float[Tensor, "*row document"]:
    """The mean over some heads; over all heads of all layers if left out."""
    if heads is None:
        return found.mean((-3, -2))
    rows = [model.layers.index(layer) for layer, _ in heads]
    return found[..., rows, [head for _, head in heads], :].mean(-2)
