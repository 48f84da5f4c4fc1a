"""Lists of keys and values, and what a question about one value is held against."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Item
from headscope.evals.changing import choice as compared
from headscope.evals.changing import swapped
from headscope.evals.drafting import before
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.base import Range

Pair = tuple[str, str]


def line(key: str) -> str:
    """How the line of a key begins, up to its value."""
    return f'  "{key}":'


def pair_list(
    pairs: Sequence[Pair],
    slot: int,
    words: list[str],
    asked: Asked,
    tokenizer: PreTrainedTokenizerBase,
    facts: Mapping[str, int | float | str],
    steps: Sequence[int] = (),
) -> Draft:
    """A question about pairs as lines of JSON, with words of prose before them.

    Its spans: "pair_0", "pair_1", ... (without indent and comma), "needle" (the pair of the slot),
    "answer" (its value), and "step_0", ... for the pairs that lead to it, if any are given.
    """
    text, spans = "{", dict[str, Range]()
    for i, (key, value) in enumerate(pairs):
        start = len(text) + len("\n  ")
        text += f"\n{line(key)} {value}"
        spans[f"pair_{i}"] = (start, len(text))
        if i == slot:
            spans |= {"needle": (start, len(text)), "answer": (len(text) - len(value), len(text))}
        text += "," if i < len(pairs) - 1 else "\n}"
    spans |= {f"step_{i}": spans[f"pair_{step}"] for i, step in enumerate(steps)}
    text, moved = before(words, text)
    spans = {name: (start + moved, stop + moved) for name, (start, stop) in spans.items()}
    facts = {**facts, "slot": slot, "pairs": len(pairs)}
    return asked.about(text, spans, tokenizer, facts)


def choice(
    draft: Draft,
    tokenizer: PreTrainedTokenizerBase,
    others: Sequence[int],
    rng: random.Random,
    most: int,
) -> Item:
    """The item of a draft from `pair_list`, with the values of other pairs as wrong answers.

    Its corrupt prompt has the asked value swapped with the first of those that leaves its length
    as it is.

    Args:
        others: numbers of the pairs whose values compete; all values have as many characters.
        most: how many of them are drawn at most.
    """
    drawn = rng.sample(others, min(most, len(others)))
    width = len(draft.answer)
    places = [(draft.spans[f"pair_{i}"][1] - width, draft.spans[f"pair_{i}"][1]) for i in drawn]
    swaps = (_swapped(draft, place) for place in places)
    return compared(draft, tokenizer, [draft.text[slice(*place)] for place in places], *swaps)


def _swapped(draft: Draft, other: Range) -> Draft:
    """The same list with the asked value and another one in each other's place."""
    named = replace(draft, spans={**draft.spans, "other": other})
    # Values have as many characters: all spans stay where they are.
    return replace(swapped(named, "answer", "other"), spans=draft.spans)
