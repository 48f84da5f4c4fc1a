"""Lists that grow until they fill a prompt of a given length."""

from collections.abc import Callable
from functools import partial

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval
from headscope.evals.drafting import at_length
from headscope.prompts.asking import Draft


def filling(
    task: Eval,
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    draft: Callable[[int, list[str]], Draft],
    sizes: tuple[int, int],
    size: int,
) -> Draft:
    """The prompt with as long a list as a sample's length holds; a little prose takes what is left.

    Args:
        draft: the prompt with a list of a given size, and words of prose before it.
        sizes: the smallest and the largest list there can be.
        size: the list where no length is asked for.

    Raises:
        HeadscopeError: the smallest list is longer than the prompt may be.
    """
    length = task.length(index)
    if not length:
        return draft(size, [])
    low, high = sizes[0], min(sizes[1], max(length, sizes[0])) + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = draft(middle, []).size(tokenizer) <= length
        low, high = (middle, high) if fits else (low, middle)
    return at_length(task, index, tokenizer, partial(draft, low))
