"""As much filler as a prompt of a given length holds."""

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts import filler
from headscope.prompts.asking import Draft
from headscope.prompts.base import Split

_TRIES = 32


def fitted(
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    split: Split,
    start: int,
    draft: Callable[[list[str]], Draft],
) -> Draft:
    """The prompt with as many words of the filler as fit into `length` tokens.

    Args:
        length: tokens of the prompt, met within 1 % and never exceeded.
        split, start: the third of the filler, and the word of it, to begin at.
        draft: the prompt around given words of filler.

    Raises:
        HeadscopeError: the rest of the prompt takes more than that, or it cannot be met.
    """
    bare = draft([]).size(tokenizer)
    if bare > length:
        raise HeadscopeError(
            f"A prompt of {length} tokens cannot be made: the question alone takes {bare}, with "
            "what it asks about; ask for longer prompts."
        )
    # A long word can leave a short prompt short of its length; other words then fit better.
    for shift in range(_TRIES):
        words = filler.passage(split, start + shift, length)  # a word is at least one token
        low, high = 0, len(words) + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = draft(words[:middle]).size(tokenizer) <= length
            low, high = (middle, high) if fits else (low, middle)
        fullest = draft(words[:low])
        if fullest.size(tokenizer) >= 0.99 * length:
            return fullest
    raise HeadscopeError(
        f"A prompt of {length} tokens cannot be made within 1 %; ask for longer ones."
    )
