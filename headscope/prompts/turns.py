"""A text as a user's turn in the tokenizer's chat template."""

from collections.abc import Mapping

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.base import Range

_MARK = "headscopemark"


def chat_turn(tokenizer: PreTrainedTokenizerBase, text: str, system: str = "") -> str:
    """A user's turn in the chat template, up to the start of the assistant's answer.

    Args:
        system: a system turn before it; none of the caller's if empty.

    Raises:
        HeadscopeError: there is no chat template, or it refuses one of the turns.
    """
    if not tokenizer.chat_template:
        raise HeadscopeError("This tokenizer has no chat template; use plain prompts (chat=False).")
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": text})
    try:
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        refused = "a system turn" if system else "a user's turn"
        advice = 'use system=""' if system else "use plain prompts (chat=False)"
        raise HeadscopeError(
            f"This tokenizer's chat template refuses {refused} ({error}); {advice}."
        ) from error
    if system.strip() not in str(whole):
        raise HeadscopeError(
            'This tokenizer\'s chat template drops the system turn; use system="".'
        )
    return str(whole)


def in_chat(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Mapping[str, Range], system: str = ""
) -> tuple[str, dict[str, Range]]:
    """A text as the user's turn, and where its spans are then; many templates trim the text.

    Args:
        text: the user's content.
        spans: named half-open ranges of characters in it.

    Raises:
        HeadscopeError: as `chat_turn`, or the template changes the text.
    """
    wrapped = chat_turn(tokenizer, text, system)
    # The words of a template may hold a short text too: a mark shows where the turn begins.
    start = max(chat_turn(tokenizer, _MARK, system).find(_MARK), 0)
    kept = text if wrapped.startswith(text, start) else text.strip()
    at, skipped = wrapped.find(kept, start), text.index(kept)
    if not kept or at < 0:
        raise HeadscopeError("the chat template does not hold the text as it is; leave chat out")
    moved: dict[str, Range] = {}
    for name, (low, high) in spans.items():
        low, high = max(low - skipped, 0), min(high - skipped, len(kept))
        if low >= high:
            raise HeadscopeError(
                f"the span {name!r} holds only space, which the chat template trims"
            )
        moved[name] = (at + low, at + high)
    return wrapped, moved
