"""Pairs of prompts for tiny models: evals that tests alone use, and margins by brute force."""

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

LENGTH = 12


@dataclass(frozen=True)
class _Random(Eval):
    """Random tokens, of which the corrupt prompt has another one in one place.

    Attributes:
        answer: tokens of each answer.
        changed: where the prompts differ.
    """

    metric = "choice"
    source = "none"
    licence = "none needed"
    in_prompt = False
    samples: int = 6
    answer: int = field(default=1, kw_only=True)
    changed: int = field(default=5, kw_only=True)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng("item", index)
        ids, answers = rng.sample(range(3, 97), LENGTH + 1), rng.sample(range(3, 97), 3)
        each = [(a, *(rng.randrange(3, 97) for _ in range(self.answer - 1))) for a in answers]
        other = [*ids[:-1]]
        other[self.changed] = ids[-1]
        right, also, wrong = each
        facts = {"length": 0}
        corrupt = Prompt(tuple(other), answer_ids=wrong, facts=facts)
        clean = Prompt(tuple(ids[:-1]), answer_ids=right, facts=facts)
        return Item(clean, wrong=(wrong,), right=(also,), corrupt=corrupt)


@dataclass(frozen=True)
class _Copied(Eval):
    """A block of words said twice; the answer is how it goes on.

    Attributes:
        keys: whether the corrupt prompt has the words *before* two answers swapped in the first
            copy, rather than another word for the answer: the keys that induction heads look for
            then move, and the words that they copy stay.
    """

    metric = "choice"
    source = "none"
    licence = "none needed"
    samples: int = 6
    keys: bool = field(default=False, kw_only=True)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = random.Random(repr((self.seed, self.split, index)))
        *block, other = rng.sample(range(165, 400), 21)
        at, far = 8, 14
        ids = [tokenizer.bos_token_id, *block, *block[: at + 1]]
        changed, right = list(ids), block[at + 1]
        if self.keys:
            changed[1 + at], changed[1 + far] = block[far], block[at]
            other = block[far + 1]
        else:
            changed[2 + at] = other
        facts = {"length": 0}
        clean = Prompt(tuple(ids), answer_ids=(right,), facts=facts)
        return Item(
            clean,
            wrong=((other,),),
            corrupt=Prompt(tuple(changed), answer_ids=(other,), facts=facts),
        )


def margin(logits_of: Any, item: Item, prompt: Prompt) -> float:
    """Of the clean item's answers, each read in a whole pass of its own.

    Args:
        logits_of: gives the logits of a sequence.
    """

    def logp(answer: tuple[int, ...]) -> torch.Tensor:
        ids = torch.tensor([(*prompt.token_ids, *answer[:-1])])
        said = logits_of(ids)[0, len(prompt) - 1 :].log_softmax(-1)
        return said[range(len(answer)), list(answer)].sum()

    right = torch.stack([logp(a) for a in (item.prompt.answer_ids, *item.right)])
    wrong = torch.stack([logp(a) for a in item.wrong])
    return float(right.logsumexp(0) - wrong.logsumexp(0))


def every_head(model: HeadModel) -> list[tuple[int, int]]:
    return [(layer, head) for layer in model.layers for head in range(model.n_heads)]
