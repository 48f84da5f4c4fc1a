"""The latest earlier copy of a token, and the attention that rows give to what stands there."""

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.probes.base import Reading


def latest_copies(
    token_ids: Int[Tensor, " token"],
) -> tuple[Int[Tensor, " place"], Int[Tensor, " place"]]:
    """Every place whose token stood before, and the last place where it did."""
    order = torch.argsort(token_ids, stable=True)
    again = token_ids[order[1:]] == token_ids[order[:-1]]
    return order[1:][again], order[:-1][again]


def mean_on_latest_copies(
    attended: Attended, reading: "Reading", after: Literal[0, 1]
) -> Float[Tensor, " head"]:
    """Attention on what stands `after` tokens behind the latest copy, over rows that have one.

    Args:
        after: 0 for the copy itself, 1 for the token that followed it.
    """
    return reading.shared(attended, _on_latest)[after]


def _sets(reading: "Reading") -> tuple[Int[Tensor, "place 1"], Int[Tensor, "place 2 1"]]:
    rows, places = latest_copies(reading.token_ids)
    return rows[:, None], torch.stack((places, places + 1), 1)[:, :, None]


def _on_latest(attended: Attended, reading: "Reading") -> Float[Tensor, "2 head"]:
    found = attended.attention.mass_on_sets(*reading.once(_sets))[0]
    return found.mean((-1, -2)).T


def require_copies(prompt: Prompt, probe: str) -> None:
    """Refuse a prompt in which no token occurs twice."""
    if len(set(prompt.token_ids)) == len(prompt):
        raise HeadscopeError(
            f"the probe {probe!r} reads earlier copies of tokens, and no token of this prompt has "
            "one; use repeated tokens, or leave the probe out."
        )
