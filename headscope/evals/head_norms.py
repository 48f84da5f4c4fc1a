"""How much every head writes to the residual stream: what norm-matched controls are matched by."""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


@torch.no_grad()
def head_norms(model: HeadModel, prompts: Sequence[Prompt]) -> dict[Head, float]:
    """The mean over tokens of ||z W_O[head]||, for every head.

    Args:
        prompts: what to measure on; none of the test.

    Raises:
        HeadscopeError: there is no prompt, or z does not reach the residual stream through W_O
            alone.
    """
    if not prompts:
        raise HeadscopeError("Norms of heads are measured on at least one prompt.")
    grams: dict[int, Float[Tensor, "head d d"]] = {}
    for layer in model.layers:  # traced before the passes that are observed
        weights = model.weights(layer)
        weights.require_linear_output()
        # ||z W||² = z (W Wᵀ) zᵀ: no vector of the model's width is made for any token.
        W_O = weights.W_O.float()
        grams[layer] = W_O @ W_O.mT
    sums: dict[int, Float[Tensor, " head"]] = {}
    tokens = 0

    def observe(attended: Attended) -> None:
        z, gram = attended.z[0].float(), grams[attended.attention.layer].to(attended.z.device)
        squares = einsum(z @ gram, z, "head token d, head token d -> head token")
        norms = squares.clamp(min=0).sqrt().sum(1).cpu()
        layer = attended.attention.layer
        sums[layer] = sums[layer] + norms if layer in sums else norms

    with model.observed(observe):
        for prompt in prompts:
            model.forward(list(prompt.token_ids), last=1)
            tokens += len(prompt)
    return {
        (layer, head): float(total) / tokens
        for layer, totals in sums.items()
        for head, total in enumerate(totals)
    }
