"""Greedy answers that end at a string, and the task options that ask for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.model import HeadModel

# Names for one thing, the harness's own first.
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p")


def greedy(options: Mapping[str, Any], default: int) -> tuple[list[str], int]:
    """Strings that end an answer, and how many tokens it has at most.

    Args:
        options: a task's generation_kwargs.
        default: tokens of a task that does not say how many.

    Raises:
        HeadscopeError: the options ask for anything but greedy decoding.
    """
    rest = dict(options)
    until = rest.pop("until", None) or []
    lengths = [int(n) for name in _LENGTHS if (n := rest.pop(name, None)) is not None]
    samples = rest.pop("do_sample", None)
    # Without sampling these say nothing, and a temperature of 0 says that there is none.
    if samples is False or (samples is None and rest.get("temperature") == 0):
        rest = {name: value for name, value in rest.items() if name not in _OF_SAMPLING}
    named = [*(["do_sample"] if samples else []), *rest]
    if named:
        raise HeadscopeError(
            f"headscope generates greedily; leave {', '.join(named)} out of the task's "
            "generation_kwargs."
        )
    until = [until] if isinstance(until, str) else until
    return [end for end in until if end], lengths[0] if lengths else default


def answer(model: HeadModel, ids: list[int], tokens: int, until: Sequence[str]) -> str:
    """What the model says after a prompt, up to the first string that ends it.

    Args:
        ids: the prompt.
        tokens: how many at most.
        until: strings that end the answer and are no part of it.
    """

    def ended(seen: Tensor, *_: Any, **__: Any) -> Tensor:
        text = model.decode(seen[0, len(ids) :].tolist())
        return torch.tensor([any(end in text for end in until)], device=seen.device)

    new = model.generate(ids, max_new_tokens=tokens, stopping_criteria=[ended])
    text = model.decode(new)
    return text[: min((at for end in until if (at := text.find(end)) >= 0), default=None)]
