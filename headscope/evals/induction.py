import random
from dataclasses import dataclass, field, replace
from typing import Literal

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item, TokenIds
from headscope.prompts.base import Prompt
from headscope.prompts.repeated import Repeated

Half = Literal["second", "first"]


@dataclass(frozen=True)
class Induction(Eval):
    """Nats of a block of random tokens said a second time, which only its first copy foretells.

    A start token, a block of distinct random tokens, and the block again. Its first token, which
    nothing foretells, belongs to the prompt; the others are what is scored. A length is that of
    prompt and answer together; where it leaves the copies unequal, the second is cut by a token.

    Source: Olsson et al. 2022, arXiv 2209.11895, who compare tokens late and early in a context
    and repeat random sequences. The score of one copy alone is headscope's own.

    Attributes:
        half: "second", or "first" as a control: the same tokens in the first copy, where there is
            nothing to copy from. A length of n + 1 has the blocks of "second" at 2 n + 1.
    """

    metric = "tokens"
    source = "Olsson et al. 2022, arXiv 2209.11895"
    licence = "none needed"
    lengths: tuple[int, ...] = field(default=(129,), kw_only=True)
    half: Half = field(default="second", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.half not in ("second", "first"):
            raise HeadscopeError(f"half is 'second' or 'first', not {self.half!r}.")
        if not self.lengths or min(self.lengths) < 5:
            raise HeadscopeError(f"The eval {self.name!r} needs lengths of five tokens or more.")
        if self.half == "first":
            object.__setattr__(self, "in_prompt", False)  # there is no copy to find

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        length = self.length(index)
        both = length if self.half == "second" else 2 * length - 1
        # Both halves say the same blocks, whichever class asks.
        seed = random.Random(repr(("induction", self.seed, self.split))).getrandbits(32)
        made = Repeated(seed=seed, times=2, lengths=(both,)).prompt(index, tokenizer)
        ids, second = made.token_ids, made.span("repeats")[0]
        first = ids.index(ids[second])
        facts = {"length": length, "block": second - first}
        if self.half == "first":
            return Item(_after(ids[:second], first, tokenizer, facts))
        prompt = _after(ids, second, tokenizer, facts)
        copy = (first + 1, first + 1 + len(prompt.answer_ids))
        return Item(replace(prompt, spans={"answer": copy}))


def _after(
    ids: TokenIds, start: int, tokenizer: PreTrainedTokenizerBase, facts: dict[str, int]
) -> Prompt:
    """All up to the first token of a block as the prompt, the rest of the block as its answer."""
    answer = ids[start + 1 :]
    said = str(tokenizer.decode(list(answer)))
    return Prompt(ids[: start + 1], answer=said, answer_ids=answer, facts=facts)
