"""How well a model says an expected answer, from one forward pass."""

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


@dataclass(frozen=True)
class Forced:
    """The expected answer under teacher forcing.

    Attributes:
        logp: log-probability of the whole answer, in nats.
        exact: whether every token of it is the most likely one, which is when greedy decoding
            would have said it.
    """

    logp: float
    exact: bool


@torch.no_grad()
def forced_answer(model: HeadModel, prompt: Prompt, cache: Cache | None = None) -> Forced:
    """Score the expected answer.

    Args:
        cache: holds all of the prompt but its last token; left as it was found. Without it the
            whole prompt goes through the model.

    Raises:
        HeadscopeError: the prompt expects no answer.
    """
    if not prompt.answer_ids:
        raise HeadscopeError("This prompt expects no answer, so none can be scored.")
    n = len(prompt.answer_ids)
    ids = torch.tensor([(*prompt.token_ids, *prompt.answer_ids[:-1])], device=model.device)
    held = 0 if cache is None else int(cache.get_seq_length())
    logits = model.forward(ids[:, held:], cache=cache, prompt_length=len(prompt), last=n)[0]
    if cache is not None:
        cache.crop(held - int(cache.get_seq_length()))
    want = torch.tensor(prompt.answer_ids, device=model.device)
    logp = logits.float().log_softmax(-1).gather(1, want[:, None]).sum()
    return Forced(float(logp), bool((logits.argmax(-1) == want).all()))


@torch.no_grad()
def prefilled(model: HeadModel, prompt: Prompt) -> Cache:
    """A cache of all of a prompt but its last token."""
    cache = model.new_cache()
    if len(prompt) == 1:
        return cache
    model.forward(list(prompt.token_ids[:-1]), cache=cache, prompt_length=len(prompt), last=1)
    return cache
