"""Questions as choices, each with a version changed so that another choice is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.drafting import at_length, before, choices
from headscope.prompts.asking import Draft
from headscope.prompts.base import Range


def changed(draft: Draft, changes: Mapping[str, str], answer: str) -> Draft:
    """A draft with other words at some of its spans, and the answer that is right then.

    Args:
        changes: the new words of spans that do not overlap.
    """
    edits = sorted((draft.spans[name], words) for name, words in changes.items())

    def moved(at: int) -> int:
        return at + sum(len(words) - (b - a) for (a, b), words in edits if b <= at)

    text, start = "", 0
    for (a, b), words in edits:
        text, start = text + draft.text[start:a] + words, b
    spans = {name: (moved(a), moved(b)) for name, (a, b) in draft.spans.items()}
    return replace(draft, text=text + draft.text[start:], spans=spans, answer=answer)


def swapped(draft: Draft, one: str, two: str) -> Draft:
    """A draft with the words of two spans in each other's place, and those of the second as its
    answer."""
    first, second = (draft.text[slice(*draft.spans[name])] for name in (one, two))
    return changed(draft, {one: second, two: first}, second)


def choice(
    draft: Draft, tokenizer: PreTrainedTokenizerBase, others: Sequence[str], *corrupt: Draft
) -> Item:
    """A draft as a choice between its answer and others.

    Args:
        corrupt: changed drafts; the first that is as long in tokens is taken.

    Raises:
        HeadscopeError: the tokenizer has the same tokens for two of the answers, or ends the prompt
            otherwise before one of them.
    """
    prompt = draft.encode(tokenizer)
    wrong = choices(draft, tokenizer, others)
    if len({prompt.answer_ids, *wrong}) <= len(wrong):
        raise HeadscopeError(
            f"The tokenizer does not tell {draft.answer!r} and its other answers apart "
            f"({', '.join(map(repr, others))}); use another eval with this model."
        )
    pairs = (each.encode(tokenizer) for each in corrupt)
    return Item(
        prompt, wrong=wrong, corrupt=next((p for p in pairs if len(p) == len(prompt)), None)
    )


def behind_prose(
    task: Eval,
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    spans: Mapping[str, Range],
    draft: Callable[[str, Mapping[str, Range]], Draft],
) -> Draft:
    """The prompt of a sample, with prose before a text of its own as its length asks for.

    Args:
        text, spans: what stands behind the prose.
        draft: the prompt around prose and text.
    """

    def around(words: list[str]) -> Draft:
        whole, by = before(words, text)
        return draft(whole, {name: (a + by, b + by) for name, (a, b) in spans.items()})

    return at_length(task, index, tokenizer, around)
