"""What evals do with a prompt that is still text: bring it to length, find its choices."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, TokenIds
from headscope.prompts import filler
from headscope.prompts.asking import Draft
from headscope.prompts.fitting import fitted


def at_length(
    task: Eval, index: int, tokenizer: PreTrainedTokenizerBase, draft: Callable[[list[str]], Draft]
) -> Draft:
    """The prompt of a sample with as many words of prose as its length asks for.

    Args:
        draft: the prompt around given words of the filler; around none where no length is asked
            for.

    Raises:
        HeadscopeError: the prompt without prose is longer than that already.
    """
    length = task.length(index)
    if not length:
        return draft([])
    start = task.rng("filler", index).randrange(len(filler.words(task.split)))
    return fitted(tokenizer, length, task.split, start, draft)


def before(words: list[str], rest: str) -> tuple[str, int]:
    """Prose and a blank line before a text, and how many characters that moves it by."""
    prose = filler.join(words).strip()
    lead = f"{prose}\n\n" if prose else ""
    return lead + rest, len(lead)


def choices(
    draft: Draft, tokenizer: PreTrainedTokenizerBase, others: Iterable[str]
) -> tuple[TokenIds, ...]:
    """The tokens of other answers to a draft.

    Raises:
        HeadscopeError: the tokenizer would end the prompt otherwise before one of them.
    """
    prompt = replace(draft, spans={}).encode(tokenizer)
    found = []
    for other in others:
        changed = replace(draft, spans={}, answer=other).encode(tokenizer)
        if changed.token_ids != prompt.token_ids:
            raise HeadscopeError(
                f"The tokenizer joins the end of the prompt with the answer {other!r}, so that it "
                f"cannot be compared with {draft.answer!r}."
            )
        found.append(changed.answer_ids)
    return tuple(found)
