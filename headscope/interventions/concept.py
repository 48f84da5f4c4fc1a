"""The directions of a head's output that write a concept's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.words import tokens_of

if TYPE_CHECKING:
    from headscope.model import HeadModel

_RANK = 1e-5  # singular values below this share of the largest say nothing


@dataclass(frozen=True, eq=False)
class Concept:
    """What of each head's z moves the logits of some tokens.

    The tokens' logits get z @ A from a head, A = W_O W_U[:, tokens], the final norm left out. A
    head's `basis` spans the columns of A; what of z is orthogonal to it moves none of them.

    Attributes:
        tokens: their ids.
        model_name, fingerprint: of the model that they belong to.
        layers: its attention layers.
        basis: orthonormal, [layer row, head, d, direction]; columns of zeros where A has less rank.
    """

    tokens: tuple[int, ...]
    model_name: str
    fingerprint: str
    layers: tuple[int, ...]
    basis: Float[Tensor, "layer head d direction"]

    @classmethod
    def of(cls, model: "HeadModel", words: Sequence[str | int]) -> "Concept":
        """The concept of some words, each one token behind a space, or token ids.

        Raises:
            HeadscopeError: no word, one that is several tokens, more of them than a head has
                dimensions, or a model that does not write z through W_O alone.
        """
        tokens = tokens_of(model, words)
        if not 0 < len(tokens) <= model.d_head:
            raise HeadscopeError(
                f"A concept needs 1 to {model.d_head} words here, not {len(tokens)}."
            )
        columns = model.unembed[:, list(tokens)].float()
        bases = []
        for layer in model.layers:
            weights = model.weights(layer)
            if weights.output_gate:
                raise HeadscopeError(
                    f"{model.name} gates or normalises z before W_O in layer {layer}, so that no "
                    "direction of z is a word's; scale whole heads with ScaleHeads."
                )
            writes = weights.W_O.float() @ columns.to(weights.W_O.device)
            u, s, _ = torch.linalg.svd(writes, full_matrices=False)
            bases.append((u * (s > _RANK * s[:, :1])[:, None]).cpu())
        return cls(tokens, model.name, model.fingerprint, tuple(model.layers), torch.stack(bases))

    def check(self, model: "HeadModel") -> None:
        """Refuse another model than the one whose words these are.

        Raises:
            HeadscopeError: it names both.
        """
        if model.fingerprint != self.fingerprint:
            raise HeadscopeError(
                f"The concept belongs to {self.model_name}, and this is {model.name} with other "
                "weights; make it with Concept.of(model, words)."
            )
