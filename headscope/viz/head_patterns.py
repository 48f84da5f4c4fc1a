"""The attention patterns of some heads on one text, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headscope.errors import HeadscopeError
from headscope.heads import Head, label, parse_head
from headscope.viz.pooling import MOST, square

if TYPE_CHECKING:
    from headscope.model import HeadModel, TokenIds
    from headscope.viz.chart import Chart


@dataclass(frozen=True, eq=False)
class Patterns:
    """Where some heads look on one text.

    Attributes:
        model: its short name.
        tokens: the text of every token.
        size: tokens on a side of a square; 1 where every pair has a weight of its own.
        weights: by head, [query, key] float32: a weight, or the highest one of a square.
    """

    model: str
    tokens: tuple[str, ...]
    size: int
    weights: Mapping[Head, np.ndarray]

    @property
    def squares(self) -> int:
        """Rows and columns of every pattern."""
        return -(-len(self.tokens) // self.size)

    def __repr__(self) -> str:
        heads = ", ".join(map(label, list(self.weights)[:4]))
        more = len(self.weights) - 4
        return (
            f"Patterns({self.model}, {len(self.tokens)} tokens, {heads}"
            f"{f' and {more} more' if more > 0 else ''})"
        )

    def __getitem__(self, head: Head | str) -> np.ndarray:
        """The pattern of one head, by "L17H3" or (17, 3).

        Raises:
            HeadscopeError: it was not computed.
        """
        found = parse_head(head) if isinstance(head, str) else head
        if found not in self.weights:
            raise HeadscopeError(
                f"The pattern of {label(found)} was not computed; there are: "
                f"{', '.join(map(label, self.weights))}."
            )
        return self.weights[found]

    def chart(self) -> "Chart":
        """The pattern of a single head, or all of them small and side by side."""
        from headscope.viz.figures import attention_pattern, gallery

        if len(self.weights) > 1:
            return gallery(self)
        ((head, weights),) = self.weights.items()
        name = f"{label(head)} of {self.model}"
        return attention_pattern(weights, self.tokens, name=name, size=self.size)

    def _repr_html_(self) -> str:
        return self.chart().svg()


def patterns(
    model: "HeadModel",
    text: "str | TokenIds",
    heads: "Sequence[Head | str] | None" = None,
    most: int = MOST,
) -> Patterns:
    """Run a text through a model and keep the patterns of some heads.

    Longer texts are pooled while they are computed, so that no n × n pattern is ever made: every
    cell is then the highest weight of a square of tokens. What is seen is what the model really
    ran, edits by open scopes included.

    Args:
        model: an opened model, of any backend.
        text: a text, or token ids of one sequence.
        heads: names like "L17H3" or pairs; the heads of the middle layer if left out.
        most: squares in a row, at most; a text of no more tokens keeps every weight.

    Raises:
        HeadscopeError: the text is empty or longer than the model's context, or there is no such
            head.
    """
    import torch

    from headscope.heads import by_layer, selected_heads
    from headscope.model import check_opened

    check_opened(model)
    if most < 1:
        raise HeadscopeError(f"A pattern needs a square at least, not {most}.")
    if heads is None:
        layer = model.layers[len(model.layers) // 2]
        heads = [(layer, head) for head in range(model.n_heads)]
    chosen = selected_heads(heads, model.layers, model.n_heads, model.spec)
    if isinstance(text, str):
        ids = model.tokens(text) if text else torch.empty(1, 0)
    else:
        ids = torch.as_tensor(text)
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or len(ids) != 1 or not ids.numel():
        raise HeadscopeError("Give one text with a token at least, or the token ids of one.")
    n = ids.shape[1]
    if n > model.context_length:
        raise HeadscopeError(
            f"{n:,} tokens do not fit into the {model.context_length:,} that {model.spec} was made "
            "for; use a shorter text."
        )
    size, wanted = square(n, most), by_layer(chosen)
    kept: dict[Head, np.ndarray] = {}

    def keep(attended) -> None:
        attention = attended.attention
        for head in wanted.get(attention.layer, ()):
            one = attention.head(head)
            found = one.rows(None) if size == 1 else one.block_map(size, "max")
            kept[attention.layer, head] = found[0, 0].float().cpu().numpy()

    with torch.no_grad(), model.observed(keep):
        model.forward(ids, attention_mask=torch.ones_like(ids), last=1)
    tokens = tuple(_texts(model, ids[0].tolist()))
    return Patterns(model.name, tokens, size, {head: kept[head] for head in chosen})


def _texts(model: "HeadModel", ids: list[int]) -> list[str]:
    """Every token as text, special ones too."""
    return [str(model.tokenizer.decode([i])) for i in ids]
