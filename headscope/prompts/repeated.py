"""Random tokens, said twice: nothing but earlier copies tells what comes next."""

from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.base import Prompt, PromptFamily


@dataclass(frozen=True)
class Repeated(PromptFamily):
    """A start token, then one block of distinct random tokens several times over.

    Source: Olsson et al. 2022, arXiv 2209.11895 (25 random tokens four times behind a start
    token). Special and added tokens are left out of the draw.

    Span: "repeats", every token that has an earlier copy.

    Attributes:
        block: tokens in the block.
        times: how often it is said.
        lengths: lengths of the whole prompt in tokens, taken in turn, instead of the block's; the
            last block is cut where it would pass them.
    """

    block: int = 64
    times: int = 4
    lengths: tuple[int, ...] = ()

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        start = next(
            (t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None
        )
        first = [] if start is None else [int(cast(int, start))]
        size, length = self.block, len(first) + self.block * self.times
        if self.lengths:
            length = self.lengths[index % len(self.lengths)]
            size = -(-(length - len(first)) // max(1, self.times))
        if size < 2 or self.times < 2 or length <= len(first) + size:
            raise HeadscopeError("Repeated tokens need a block of two or more, twice or more.")
        special = {*tokenizer.all_special_ids, *cast(Any, tokenizer).get_added_vocab().values()}
        ordinary = [i for i in range(tokenizer.vocab_size) if i not in special]
        if size > len(ordinary):
            raise HeadscopeError(
                f"A block of {size} distinct tokens cannot be drawn from a vocabulary of "
                f"{len(ordinary)}."
            )
        block = self.rng(index).sample(ordinary, size)
        ids = (first + block * self.times)[:length]
        return Prompt(
            tuple(ids), {"repeats": (len(first) + size, length)}, facts={"length": length}
        )
