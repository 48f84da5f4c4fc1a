"""Forward passes of a probe's own, and the start token that they begin with."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel


def measured_pass(
    model: HeadModel,
    token_ids: Sequence[int],
    measure: Callable[[Attended], Mapping[str, Float[Tensor, " head"]]],
) -> dict[str, Float[Tensor, "layer head"]]:
    """What a function gives of each layer, by name, from one pass over some tokens."""
    found: list[dict[str, Tensor]] = []

    def observe(attended: Attended) -> None:
        found.append({name: score.cpu() for name, score in measure(attended).items()})

    with torch.no_grad(), model.observed(observe):
        model.forward(token_ids, prompt_length=len(token_ids), last=1)
    return {name: torch.stack([layer[name] for layer in found]) for name in found[0]}


def start_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that begins a sequence: BOS, or EOS where a tokenizer has no BOS."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next((int(cast(int, token)) for token in known if token is not None), None)


def required_start(model: HeadModel, probe: str) -> int:
    """The same, for a probe that cannot do without.

    Raises:
        HeadscopeError: the tokenizer has neither.
    """
    start = start_token(model.tokenizer)
    if start is None:
        raise HeadscopeError(
            f"the probe {probe!r} begins a pass with a start token, and the tokenizer of "
            f"{model.spec} has neither BOS nor EOS; set its bos_token, or leave the probe out."
        )
    return start
