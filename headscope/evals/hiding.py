"""Sentences hidden in running text, with spans for what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval
from headscope.evals.drafting import at_length
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.weaving import weave


@dataclass(frozen=True)
class Hidden:
    """A sentence, where it is hidden, and what it is known by.

    Attributes:
        depth: its relative place, from 0 to 1.
        text: the sentence.
        name: the span that holds all of it.
        part, part_name: a piece of it and the span that holds the first one such; none if empty.
    """

    depth: float
    text: str
    name: str
    part: str = ""
    part_name: str = ""


def hide(
    task: Eval,
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    asked: Asked,
    sentences: Sequence[Hidden],
    facts: Mapping[str, int | float | str],
    noise: Sequence[str] = (),
) -> Draft:
    """A prompt of the length of a sample that asks about sentences in running text.

    Args:
        noise: words to hide them in, over and over; the filler's prose if empty.

    Raises:
        HeadscopeError: sentences and question alone are longer than the prompt may be.
    """
    rising = sorted(sentences, key=lambda sentence: sentence.depth)
    facts = {"length": task.length(index), **facts}

    def draft(words: list[str]) -> Draft:
        around = [noise[i % len(noise)] for i in range(len(words))] if noise else words
        woven = weave(around, [(sentence.depth, sentence.text) for sentence in rising])
        spans = woven.numbered()
        for sentence, (start, stop) in zip(rising, woven.placed, strict=True):
            spans[sentence.name] = (start, stop)
            if sentence.part:
                at = start + sentence.text.index(sentence.part)
                spans[sentence.part_name] = (at, at + len(sentence.part))
        return asked.about(woven.text, spans, tokenizer, facts)

    return at_length(task, index, tokenizer, draft)
