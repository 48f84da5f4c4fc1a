"""Which blocks of a text a pattern touches, and which it fills: what block-sparse kernels take."""

from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full

_PAIRS = 2**22  # (query, key) pairs looked at in one go

Cover = tuple[Bool[Tensor, "row_block key_block"], Bool[Tensor, "row_block key_block"]]


@lru_cache(maxsize=64)
def covered(pattern: Pattern, n: int, block: int) -> Cover:
    """(touched, filled): the blocks of a text of n tokens with some pair that is seen, or all.

    Causality is part of both. The last block of a text that is no multiple of `block` is never
    filled, as in PyTorch's block masks.
    """
    count = -(-n // block)
    if isinstance(pattern, Full):
        touched = torch.ones(count, count, dtype=torch.bool).tril()
        filled = touched.tril(-1)
        if n % block:
            filled[-1] = False
        return touched, filled | (torch.eye(count, dtype=torch.bool) if block == 1 else False)
    touched, filled = (torch.zeros(count, count, dtype=torch.bool) for _ in range(2))
    for row in range(count):
        first, last = row * block, min(row * block + block, n) - 1
        query = torch.arange(first, last + 1)
        wide = max(1, _PAIRS // block // block)
        for start, stop in pattern.key_ranges(first, last):
            begin, end = start // block, -(-stop // block)
            for left in range(begin, end, wide):
                right = min(left + wide, end)
                key = torch.arange(left * block, right * block)
                seen = pattern.mask(query[:, None], key[None]) & (key[None] <= query[:, None])
                seen = seen.unflatten(1, (right - left, block))
                touched[row, left:right] |= seen.any(2).any(0)
                filled[row, left:right] |= seen.all(2).all(0) & (last + 1 - first == block)
    return touched, filled


def check_blocks(name: str, length: int | None, block: int) -> int:
    """The length, where both can be used.

    Raises:
        HeadscopeError: the length is missing, or a number is out of range.
    """
    if length is None:
        raise HeadscopeError(
            f"{name} holds the blocks of one length; give length= (--length on the command line), "
            "in tokens."
        )
    if not 2 <= length <= 2**24 or not 1 <= block <= length:
        raise HeadscopeError(
            f"{name} needs a length of 2 to {2**24:,} tokens and blocks of 1 token up to it, not "
            f"{length} and {block}."
        )
    if -(-length // block) > 2**14:
        raise HeadscopeError(
            f"{length:,} tokens make {-(-length // block):,} blocks of {block} each way; take "
            "larger blocks."
        )
    return length
