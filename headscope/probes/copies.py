"""All earlier copies of a token, and the attention on them and on what followed them."""

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.probes.base import Reading


def copies(token_ids: Int[Tensor, " token"]) -> list[Int[Tensor, "_set _place"]]:
    """The places of every token that occurs more than once, ascending and padded with -1.

    Sets of like size share a tensor, whose width is a power of two: pairs within a set then cost
    one small product each, where one by one they would be gathered as often as a word is frequent.

    Raises:
        HeadscopeError: no token occurs twice.
    """
    order = torch.argsort(token_ids, stable=True)
    _, counts = torch.unique_consecutive(token_ids[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    most = int(counts.max())
    if most < 2:
        raise HeadscopeError("no token has an earlier copy; use repeated tokens.")
    found, least, width = [], 2, 4
    while least <= most:
        some = (counts >= least) & (counts <= width)
        place = torch.arange(width, device=token_ids.device)
        at = (starts[some, None] + place).clamp(max=len(order) - 1)
        if len(at):
            found.append(torch.where(place < counts[some, None], order[at], -1))
        least, width = width + 1, 2 * width
    return found


def mean_on_copies(
    attended: Attended, reading: "Reading", after: Literal[0, 1], every_row: bool
) -> Float[Tensor, " head"]:
    """Attention on what stands `after` tokens behind earlier copies, averaged over rows.

    Args:
        after: 0 for the copies themselves, 1 for the tokens that followed them.
        every_row: divide by the number of all rows, as TransformerLens' detectors do, instead of
            by the number of rows that have an earlier copy.
    """
    total = reading.shared(attended, _on_copies)[after]
    rows = sum(int((places >= 0).sum()) - len(places) for places in reading.once(_repeats))
    return total / (attended.attention.n_queries if every_row else rows)


def _repeats(reading: "Reading") -> list[Int[Tensor, "_set _place"]]:
    return copies(reading.token_ids)


def _on_copies(attended: Attended, reading: "Reading") -> Float[Tensor, "2 head"]:
    """Attention of all rows together on earlier copies, and on what followed them."""
    attention = attended.attention
    total = torch.zeros(2, attention.n_heads, device=attention.q.device)
    for places in reading.once(_repeats):
        next_ = torch.where((places >= 0) & (places + 1 < attention.n_keys), places + 1, -1)
        # A copy is earlier: itself is none, and what follows it may be the row itself.
        keys = torch.stack((places, next_), 1)
        found = attention.mass_on_sets(places, keys, behind=(1, 0))
        total = total + found[0].sum((-1, -2)).T.to(total)
    return total
