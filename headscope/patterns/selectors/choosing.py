"""How the best of many are chosen: by their number, or by the share that they hold together."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.kernels.choice import chosen, why_no_triton


def best(
    scores: Float[Tensor, "*rows n"], count: int | Int[Tensor, "*rows"]
) -> Bool[Tensor, "*rows n"]:
    """The highest scores of each row; the earlier of two that are equal, and never -inf.

    Args:
        count: how many, for all rows or for each; all where there are fewer.
    """
    if _by_kernels(scores):
        from headscope.kernels import best as kernels

        return kernels.best(scores, count)
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    limit = count[..., None] if isinstance(count, Tensor) else count
    return (rank < limit) & (scores > -torch.inf)


def fewest(weights: Float[Tensor, "*rows n"], share: float) -> Bool[Tensor, "*rows n"]:
    """The fewest weights of each row that hold a share of their sum, the largest first.

    Args:
        weights: 0 or more; a weight of 0 is never chosen.
        share: above 0 and up to 1; at 1 what is below rounding may be left out.
    """
    if _by_kernels(weights):
        from headscope.kernels import best as kernels

        return kernels.fewest(weights, share)
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    needed = (before < share * ordered.sum(-1, keepdim=True)) & (ordered > 0)
    return torch.zeros_like(needed).scatter(-1, order, needed)


def _by_kernels(x: Tensor) -> bool:
    here = chosen() != "reference" and why_no_triton(x.device) is None
    return here and x.dtype == torch.float32
