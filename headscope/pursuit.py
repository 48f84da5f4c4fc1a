"""Simultaneous orthogonal matching pursuit: a few atoms that explain many vectors together."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_DEPENDENT = 1e-8  # squared sine between an atom and the chosen ones, below which it says nothing
_CHUNK = 2**24  # products held at a time


@dataclass(frozen=True, eq=False)
class Pursuit:
    """What was chosen for each head, and how much of each of its vectors that explains.

    Attributes:
        support: atoms in the order in which they were chosen; -1 where none was left to choose.
        explained: squared length of each vector's projection onto the span of the support.
    """

    support: Int[Tensor, "head step"]
    explained: Float[Tensor, "head n"]


def pursue(
    vectors: Float[Tensor, "n head d"],
    reads: Float[Tensor, "head d atom"],
    gram: Float[Tensor, "atom atom"],
    steps: int,
) -> Pursuit:
    """Choose atoms for every head by itself, one after the other, for all its vectors at once.

    Rows of H are vectors @ W and `reads` is W D^T, so that vectors @ reads = H D^T, with atoms of
    length 1 as rows of D. Each step takes p = argmax_j ||D_j R^T||_1, adds it to the support S,
    and leaves R = H - H_S, H_S the projection of H onto the span of D_S. H, R and D are not
    needed: products with R follow from those with H by a Cholesky factor of the support's Gram
    matrix, one column a step. An atom that depends on the chosen ones is never chosen.

    Source: Tropp, Gilbert & Strauss 2006, Signal Processing 86(3); as "Head Pursuit" uses it,
    arXiv 2510.21518.

    Args:
        vectors, reads, gram: in float64, gram = D D^T.
        steps: how many atoms, at most.
    """
    n, heads, _ = vectors.shape
    at_once = max(1, _CHUNK // max(1, n * len(gram)))
    parts = [
        _pursue(vectors[:, some].transpose(0, 1) @ reads[some], gram, min(steps, len(gram)))
        for some in torch.arange(heads, device=vectors.device).split(at_once)
    ]
    return Pursuit(torch.cat([p.support for p in parts]), torch.cat([p.explained for p in parts]))


def _pursue(
    left: Float[Tensor, "head n atom"], gram: Float[Tensor, "atom atom"], steps: int
) -> Pursuit:
    """The same from products of all vectors with all atoms, which are written over."""
    heads, n, atoms = left.shape
    outside = gram.diagonal().repeat(heads, 1)  # squared length of each atom beside the support
    factor = left.new_zeros(heads, steps, atoms)
    explained, support = left.new_zeros(heads, n), []
    for step in range(steps):
        strength = torch.linalg.vector_norm(left, ord=1, dim=1)
        strength, pick = strength.masked_fill(outside <= _DEPENDENT, 0).max(-1)
        chosen = (strength > 0)[:, None]
        at = pick[:, None]
        length = outside.gather(1, at).clamp(min=_DEPENDENT).sqrt()
        before = factor[:, :step]
        own = before.gather(2, at[:, None].expand(-1, step, 1))
        unit = (gram[pick] - (own * before).sum(1)) / length * chosen
        along = left.gather(2, at[:, None].expand(-1, n, 1))[..., 0] / length * chosen
        left.baddbmm_(along[:, :, None], unit[:, None], alpha=-1)
        factor[:, step] = unit
        outside = outside - unit.square()
        explained += along.square()
        support.append(torch.where(chosen, at, -1))
    return Pursuit(torch.cat(support, 1), explained)
