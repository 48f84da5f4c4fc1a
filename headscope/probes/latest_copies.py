"""The latest earlier copy of a token, and the attention that rows give to what stands there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.probes.copies import Pairs, mean_on_pairs
from headscope.prompts.base import Prompt


def latest_copies(token_ids: Int[Tensor, " token"]) -> Pairs:
    """Every place whose token stood before, and the last place where it did."""
    order = torch.argsort(token_ids, stable=True)
    again = token_ids[order[1:]] == token_ids[order[:-1]]
    return order[1:][again], order[:-1][again]


def mean_on_latest_copies(
    attention: Attention, token_ids: Int[Tensor, " token"], after: int
) -> Float[Tensor, " head"]:
    """Attention on what stands `after` tokens behind the latest copy, over rows that have one.

    Args:
        after: 0 for the copy itself, 1 for the token that followed it.
    """
    rows, places = latest_copies(token_ids)
    return mean_on_pairs(attention, (rows, places + after), every_row=False)


def require_copies(prompt: Prompt, probe: str) -> None:
    """Refuse a prompt in which no token occurs twice."""
    if len(set(prompt.token_ids)) == len(prompt):
        raise HeadscopeError(
            f"the probe {probe!r} reads earlier copies of tokens, and no token of this prompt has "
            "one; use repeated tokens, or leave the probe out."
        )
