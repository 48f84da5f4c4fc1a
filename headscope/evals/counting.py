"""Words that stand in a list more or less often: what the evals about frequency build and ask."""

import random
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from headscope.evals.drafting import before
from headscope.evals.several import listed
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.base import Range

LEAD = "In falling order, the {count} most frequent words are:"


def falling(counts: Sequence[float], above: int = 0) -> list[int]:
    """Whole numbers close to some falling ones, each above the next and the last above `above`."""
    found = list[int]()
    for count in reversed(counts):
        above = max(round(count), above + 1)
        found.append(above)
    return found[::-1]


def word_list(
    counts: Mapping[str, int], rng: random.Random, form: str, glue: str
) -> tuple[str, dict[str, Range]]:
    """Each word so many times, shuffled, and where each stands first.

    Args:
        form: how an entry is written, from its number `i` and its `word`.
        glue: what stands between entries.
    """
    entries = [word for word, count in counts.items() for _ in range(count)]
    rng.shuffle(entries)
    text, places = "", dict[str, Range]()
    for i, word in enumerate(entries, 1):
        text += (glue if text else "") + form.format(i=i, word=word)
        places.setdefault(word, (len(text) - len(word), len(text)))
    return text, places


def most_frequent(
    made: tuple[str, Mapping[str, Range]],
    top: Sequence[str],
    task: str,
    prose: list[str],
    chat: bool | None,
    tokenizer: PreTrainedTokenizerBase,
    facts: Mapping[str, int | float | str],
) -> Draft:
    """A question for the most frequent words of a list, with words of prose before it."""
    text, moved = before(prose, made[0])
    spans = {f"answer_{i}": made[1][word] for i, word in enumerate(top)}
    spans = {name: (start + moved, stop + moved) for name, (start, stop) in spans.items()}
    question = f"Which {len(top)} words are the most frequent ones, in falling order?"
    asked = Asked(task, question, LEAD.format(count=len(top)), listed(top), chat)
    return asked.about(text, spans, tokenizer, facts)
