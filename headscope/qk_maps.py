"""A head's logits as a bilinear form of what two tokens hold: its factors and their SVD."""

from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.norms import LayerInput
from headscope.weights import HeadWeights


@dataclass(frozen=True, eq=False)
class QKFactors:
    """Omega = query @ key^T of every query head of one layer: logit = [X_i, 1] Omega [X_j, 1]^T.

    X is the residual stream as the layer's norm leaves it before its gain and bias (`Linear`);
    gain, the norm's bias and centring are in the factors, and so is the layer's scale, in the
    query's. The last row is that of the 1, where the norm or a projection has a bias; `biased`
    says so. Logits are those before a soft-cap.
    """

    query: Float[Tensor, "head row d"]
    key: Float[Tensor, "kv_head row d"]
    biased: bool

    @property
    def symmetry(self) -> Float[Tensor, " head"]:
        """trace(Omega Omega): |Omega|^2 if Omega is symmetric, minus that if antisymmetric."""
        across = _for_heads(self.key, len(self.query)).mT @ self.query
        return (across * across.mT).sum((-1, -2))


def qk_factors(at: LayerInput, weights: HeadWeights, offset: int = 0) -> QKFactors:
    """The factors of one layer in float64, for a query `offset` tokens behind its key.

    Where the layer rotates, the rotation at that distance is in them, with the factor that scaled
    tables (YaRN) carry; elsewhere the offset plays no part.
    """
    attention, linear = at.attention, at.linear
    biases = (linear.bias, weights.b_Q, weights.b_K)
    biased = any(bias is not None and bool(bias.any()) for bias in biases)

    def factor(weight: Tensor, bias: Tensor | None, position: int) -> Tensor:
        wide = weight.double()
        rows = linear.gain.double().to(wide.device)[:, None] * wide
        if linear.centred:
            rows = rows - rows.mean(1, keepdim=True)
        if biased:
            last = wide.new_zeros(len(wide), wide.shape[2]) if bias is None else bias.double()
            if linear.bias is not None:
                shift = linear.bias.double().to(wide.device)
                last = last + einsum(shift, wide, "m, head m d -> head d")
            rows = torch.cat((rows, last[:, None]), 1)
        if attention.rope is None:
            return rows
        places = torch.full((1, rows.shape[1]), position, device=rows.device)
        return attention.rope.rotate(rows[None], places)[0]

    query = attention.scale * factor(weights.W_Q, weights.b_Q, offset)
    return QKFactors(query, factor(weights.W_K, weights.b_K, 0), biased)


def singular_values(factors: QKFactors) -> Float[Tensor, "head rank"]:
    """Of every head's Omega, largest first, by way of d × d matrices."""
    upper, lower = (torch.linalg.qr(x, mode="r").R for x in (factors.query, factors.key))
    return torch.linalg.svdvals(upper @ _for_heads(lower, len(upper)).mT)


def _for_heads(key: Float[Tensor, "kv_head n d"], heads: int) -> Float[Tensor, "head n d"]:
    return key.repeat_interleave(heads // len(key), 0)


@dataclass(frozen=True, eq=False)
class QKTerms:
    """The logits of one layer's heads as sums of terms sigma_k ([X_i, 1] . u_k)([X_j, 1] . v_k)."""

    u: Float[Tensor, "head row rank"]
    sigma: Float[Tensor, "head rank"]
    v: Float[Tensor, "head row rank"]
    biased: bool

    @classmethod
    def of(cls, factors: QKFactors, dtype: torch.dtype) -> "QKTerms":
        """The SVD of every head's Omega in the factors' dtype, kept in another one."""
        heads = len(factors.query)
        left, upper = torch.linalg.qr(factors.query)
        right, lower = torch.linalg.qr(factors.key)
        u, sigma, v = torch.linalg.svd(upper @ _for_heads(lower, heads).mT)
        right = _for_heads(right, heads)
        return cls((left @ u).to(dtype), sigma.to(dtype), (right @ v.mT).to(dtype), factors.biased)

    def coordinates(
        self, x: Float[Tensor, "token model"], side: Float[Tensor, "head row rank"]
    ) -> Float[Tensor, "head token rank"]:
        """[X, 1] along the singular vectors of one side."""
        if not self.biased:
            return x @ side
        return x @ side[:, :-1] + rearrange(side[:, -1], "head rank -> head 1 rank")


def need_bilinear(who: str, model: HeadModel) -> None:
    """Refuse a model whose logits are no bilinear form of what two tokens hold.

    Args:
        who: asks, such as "the probe 'x'".

    Raises:
        HeadscopeError: q and k are normalised behind their projections, or these are not found.
    """
    for layer in model.layers:
        try:
            normalised = model.weights(layer).qk_norm
        except HeadscopeError as error:
            raise HeadscopeError(
                f"{who} reads W_Q and W_K of every layer of {model.name}: {error}"
            ) from error
        if normalised:
            raise HeadscopeError(
                f"{who} reads logits as a bilinear form of the residual stream, and layer {layer} "
                f"of {model.name} normalises q and k behind their projections (qk-norm), so that "
                "they are none; use a model without that norm, or leave it out."
            )
