"""Joining attentions that were computed apart, by their log-sum-exp."""

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.blocks import finite

Part = tuple[Float[Tensor, "batch head query dv"], Float[Tensor, "batch head query"]]


def merge(*parts: Part) -> Part:
    """Join attentions over disjoint key sets: (z, lse) of the union.

    lse = logsumexp_i lse_i and z = sum_i z_i exp(lse_i - lse). Unlike subtracting a part from the
    whole, it loses no digits where one part holds nearly all the mass.
    """
    total = torch.stack([lse for _, lse in parts]).logsumexp(0)
    z = torch.zeros((), dtype=total.dtype, device=total.device)
    for part, lse in parts:
        z = z + torch.exp(lse - finite(total))[..., None] * part
    return z.to(parts[0][0].dtype), total


def with_sink(
    z: Float[Tensor, "batch head query dv"],
    lse: Float[Tensor, "batch head query"],
    sink_logits: Float[Tensor, " head"] | None,
) -> Part:
    """Let a learned sink logit per head take its share of a finished attention."""
    if sink_logits is None:
        return z, lse
    total = torch.logaddexp(lse, sink_logits[:, None].to(lse))
    return (z * torch.exp(lse - total)[..., None]).to(z.dtype), total
