"""A model's own greedy answer to a prompt, and the pass that reads how it came about."""

import re
import unicodedata
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

# Scripts that set no space between words, and Hangul, whose particles join the word before them:
# Thai to Myanmar, Khmer, kana, Han and its extensions.
_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_LATIN = r"0-9_A-Za-z\u00aa-\u024f\u1e00-\u1eff"  # and digits, of whatever script they were
_SIGN = re.compile(r"\S")
_WORD = re.compile(rf"(?=\w)[{_UNSPACED}]|(?:(?=\w)[{_LATIN}])+|[^\W{_UNSPACED}{_LATIN}]+")


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

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", which is about
    English. What it leaves open is headscope's own choice: where a script sets no space between
    words, each letter counts as one; Latin letters and digits end where another script begins;
    digits are equal in all scripts; vowel signs and other marks are left out. An answer without
    any word, such as an emoji or an arrow, is compared by its characters.
    """
    said, expected = _plain(said), _plain(expected)
    parts = _WORD if _WORD.search(expected) else _SIGN
    want, have = Counter(parts.findall(expected)), Counter(parts.findall(said))
    return sum((want & have).values()) / max(1, want.total())


def _plain(text: str) -> str:
    """Lower case, letters with their accents in one, without other marks, digits as 0 to 9."""
    return "".join(
        str(unicodedata.decimal(c)) if c.isdecimal() else c
        for c in unicodedata.normalize("NFC", text.lower())
        if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf")
    )
