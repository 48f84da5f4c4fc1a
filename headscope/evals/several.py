"""Answers of several values: said as one list, of which the values alone count."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Item
from headscope.prompts.asking import Draft

_SAID = "said_"


def listed(values: Sequence[str]) -> str:
    """Values as a list in words: "a, b and c"."""
    return " and ".join(part for part in (", ".join(values[:-1]), values[-1]) if part)


def several(draft: Draft, values: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Item:
    """The item of a draft whose answer is `listed(values)`; what separates values does not count.

    A token counts if it holds a character of a value: a space that is a token of its own does not.
    """
    at, spans = len(draft.text) + 1, dict(draft.spans)  # a space stands before the answer
    for i, value in enumerate(values):
        # Behind the text, spans are looked up in the answer.
        spans[f"{_SAID}{i}"] = (at, at + len(value))
        at += len(value) + len(" and " if i == len(values) - 2 else ", ")
    prompt = replace(draft, spans=spans).encode(tokenizer)
    said = [prompt.span(f"{_SAID}{i}") for i in range(len(values))]
    kept = {name: span for name, span in prompt.spans.items() if not name.startswith(_SAID)}
    tokens = range(len(prompt), len(prompt) + len(prompt.answer_ids))
    counted = tuple(any(start <= token < stop for start, stop in said) for token in tokens)
    return Item(replace(prompt, spans=kept), counted)
