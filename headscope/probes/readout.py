"""The direct path from a head's output to the logits: W_O, final norm, unembedding."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.norms import Linear


def require_readout(model: HeadModel, probe: str) -> None:
    """Refuse a model in which the path is not linear up to one scale per token.

    Weights and norm are found by passes of their own, which must not happen within another pass:
    a probe that uses them says so here, before anything is measured.

    Raises:
        HeadscopeError: z is gated before W_O, or no plain norm stands before the unembedding.
    """
    try:
        for layer in model.layers:
            model.weights(layer).require_linear_output()
        vectors = all(weight.ndim < 2 for weight in model.final_norm.parameters())
    except HeadscopeError as error:
        raise HeadscopeError(f"the probe {probe!r} cannot follow outputs to logits: {error}") from (
            error
        )
    if not vectors:
        raise HeadscopeError(
            f"the probe {probe!r} follows outputs to logits through a final norm, and in "
            f"{model.spec} a {type(model.final_norm).__name__} stands before the unembedding; "
            "leave the probe out."
        )


def token_directions(
    model: HeadModel, token_ids: Int[Tensor, " token"]
) -> Float[Tensor, "token model"]:
    """What a vector of the residual stream adds to the logits of tokens is its product with these.

    Exact up to the scale that the norm gives the row, which is one positive number for all tokens
    and heads, and up to constants and a soft-cap of the logits.
    """
    return _through_norm(model, model.unembed[:, token_ids].T)


def mean_direction(model: HeadModel) -> Float[Tensor, " model"]:
    """The mean of these directions over the whole vocabulary."""
    return _through_norm(model, model.unembed.mean(1, dtype=torch.float32)[None])[0]


def _through_norm(
    model: HeadModel, unembed: Float[Tensor, "token model"]
) -> Float[Tensor, "token model"]:
    """Columns of the unembedding times the gain of the final norm, centred where it centres."""
    linear = Linear.of(model.final_norm, unembed.to(model.unembed.dtype))
    return linear.moved(unembed.float() * linear.gain)
