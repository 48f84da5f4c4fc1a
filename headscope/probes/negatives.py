"""Prompts without what a behaviour needs, to hold against those that have it."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.questions import Questions
from headscope.prompts.base import Prompt, PromptFamily, Range


def asked(
    family: PromptFamily, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase
) -> list[Item]:
    """Prompts as questions: with competing answers and twins where their family is one of evals."""
    known = dict[str, Item]()
    if isinstance(family, Questions):
        known = {item.prompt.digest: item for item in family.items(tokenizer)}
    return [known.get(prompt.digest, Item(prompt)) for prompt in prompts]


def emptied(items: Sequence[Item], spans: Sequence[str]) -> list[Prompt | None]:
    """Prompts with other tokens in the place of what their answers follow from.

    Each span has the tokens that a span of its name has in one of the next prompts, from the start
    again behind the last: the first that is as long and whose tokens, where they differ, stand
    nowhere in the prompt or in what was put into it. A prompt that has none of the spans has its
    corrupt twin instead.

    Args:
        spans: names; "name" also stands for name_0, name_1, ...

    Returns:
        For each prompt its changed one, of the same length; None where no other has what fits.

    Raises:
        HeadscopeError: a prompt has neither spans nor a twin.
    """
    found: list[Prompt | None] = []
    for at, item in enumerate(items):
        named = _named(item.prompt, spans)
        if named:
            others = [other.prompt for other in (*items[at + 1 :], *items[:at])]
            found.append(_replaced(item.prompt, named, others))
        elif item.corrupt is not None:
            found.append(item.corrupt)
        else:
            raise HeadscopeError(
                f"prompt {at + 1} has neither a span of removed={tuple(spans)} nor a corrupt twin"
            )
    return found


def _named(prompt: Prompt, names: Sequence[str]) -> dict[str, Range]:
    found = dict[str, Range]()
    for name in names:
        if name in prompt.spans:
            found[name] = prompt.spans[name]
        found |= {f"{name}_{i}": span for i, span in enumerate(prompt.numbered(name))}
    return found


def _replaced(prompt: Prompt, spans: dict[str, Range], others: Sequence[Prompt]) -> Prompt | None:
    ids, said = list(prompt.token_ids), set(prompt.token_ids)
    for name, (start, stop) in spans.items():
        before = prompt.token_ids[start:stop]
        for other in others:
            after = other.token_ids[slice(*other.spans.get(name, (0, 0)))]
            new = {b for a, b in zip(before, after, strict=False) if a != b}
            if len(after) == len(before) and new and not new & said:
                ids[start:stop] = after
                said |= new
                break
        else:
            return None
    return replace(prompt, token_ids=tuple(ids))
