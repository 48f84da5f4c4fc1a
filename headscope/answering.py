"""A model's own greedy answer to a prompt, and the pass that reads how it came about."""

import re
from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

ACCEPTED = 0.5  # ROUGE-1 recall above which an answer counts, as in Wu et al. 2024


@dataclass(frozen=True, eq=False)
class Answer:
    """A greedy answer, and the cache that holds the prompt and all of it but its last token."""

    token_ids: Int[Tensor, " new"]
    text: str
    cache: Cache

    def accepted(self, prompt: Prompt) -> bool:
        """Whether it says what was expected: ROUGE-1 recall above 0.5."""
        return rouge1_recall(self.text, prompt.answer) > ACCEPTED


def greedy_answer(
    model: HeadModel, prompt: Prompt, cache: Cache | None = None, start: Tensor | None = None
) -> Answer:
    """Let a model answer greedily, until it ends, starts a new line, or said enough.

    Half as many tokens again as the expected answer has are enough, and two.

    Args:
        cache, start: a cache that holds the prompt, and the logits [vocab] of its last token,
            where it went through the model already.

    Raises:
        HeadscopeError: the prompt expects no answer.
    """
    if not prompt.answer_ids:
        raise HeadscopeError(
            "A prompt expects no answer, so the model's own cannot be judged; give its 'answer'."
        )
    limit = len(prompt.answer_ids) + len(prompt.answer_ids) // 2 + 2
    limit = min(limit, model.context_length - len(prompt))
    stop, cache = model.stop_ids, model.new_cache() if cache is None else cache
    logits = start
    if logits is None:
        logits = model.forward(list(prompt.token_ids), cache=cache, last=1)[0, -1]
    said: list[int] = []
    while True:
        token = int(logits.argmax())
        if token in stop or (said and "\n" in model.tokenizer.decode([token])):
            break
        said.append(token)
        if len(said) == limit:
            break
        logits = model.forward([token], cache=cache, last=1)[0, -1]
    text = model.decode(said)
    return Answer(torch.tensor(said, dtype=torch.long, device=model.device), text, cache)


def rouge1_recall(said: str, expected: str) -> float:
    """Share of the expected words that were said: ROUGE-1 recall, without stemming.

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries". Ideographs and kana
    count as words of their own.
    """
    want, have = Counter(_words(expected)), Counter(_words(said))
    return sum((want & have).values()) / max(1, want.total())


def _words(text: str) -> list[str]:
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|\w+", text.lower())
