from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count, check_places, numbers, turn
from headscope.evals.listing import filling
from headscope.evals.pairs import choice, line, pair_list
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.vocabulary import common_words

_TASK = "Below is a JSON object. Find the value of the key that is asked for."


@dataclass(frozen=True)
class KeyValue(Eval):
    """The value of one key in a JSON list of pairs, chosen among the values of other keys.

    A line reads '"apple river": 12345,'; the forced answer begins the asked line again. A prompt
    of a given length holds as many pairs as fit, with a little prose before them for the rest. In
    the corrupt prompt the asked value and one of `wrong` are in each other's place.

    Source: Liu et al. 2023, "Lost in the Middle" (arXiv 2307.03172), where keys and values are
    random UUIDs and the answer is free. Here keys are two common words and values five-digit
    numbers, and the answer is a choice, so that a small model can do it.

    Attributes:
        pairs: how many where no length is asked for.
        others: values to choose among beside the right one, fewer where there are not so many.
        depths: relative slots of the asked pair, paired evenly with the lengths.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "Liu et al. 2023, arXiv 2307.03172"
    licence = "MIT"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    pairs: int = field(default=12, kw_only=True)
    others: int = field(default=7, kw_only=True)
    depths: tuple[float, ...] = field(default=(0.0, 0.25, 0.5, 0.75, 1.0), kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self, self.depths)
        check_count(self, "pairs", self.pairs, 2, self._most)
        check_count(self, "others", self.others, 1, 100)

    @property
    def _most(self) -> int:
        return len(common_words(self.split)) * (len(common_words(self.split)) - 1)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, words = self.rng(index), common_words(self.split)
        every = [f"{first} {second}" for first in words for second in words if first != second]
        keys = rng.sample(every, len(every))
        values = numbers(rng, self.split, len(every))
        depth = turn(self, index, self.depths)

        def draft(count: int, prose: list[str]) -> Draft:
            slot = round(depth * (count - 1))
            question = f'What is the value of the key "{keys[slot]}"?'
            asked = Asked(_TASK, question, line(keys[slot]), values[slot], self.chat)
            facts = {"length": self.length(index), "depth": depth, "key": keys[slot]}
            pairs = list(zip(keys[:count], values, strict=False))
            return pair_list(pairs, slot, prose, asked, tokenizer, facts)

        made = filling(self, index, tokenizer, draft, (2, self._most), self.pairs)
        slot, count = int(made.facts["slot"]), int(made.facts["pairs"])
        others = [i for i in range(count) if i != slot]
        return choice(made, tokenizer, others, rng, self.others)
