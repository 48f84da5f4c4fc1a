from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count, check_places, turn
from headscope.evals.hiding import hide
from headscope.evals.numbered import MOST, TASK, Numbered
from headscope.prompts.asking import Asked


@dataclass(frozen=True)
class MultiKeyNeedle(Eval):
    """The number of one person's thing, among sentences that give those of others.

    Every needle reads "The ticket of Amina has the number 12345."; the forced answer is the asked
    one. The others stand at random depths: spans "distractor_0", "distractor_1", ...

    Source: "niah_multikey" in RULER (Hsieh et al. 2024, arXiv 2404.06654). Sentences, names and
    prose are headscope's own, and numbers have five digits instead of seven.

    Attributes:
        distractors: needles that are not asked for.
        depths: relative places of the asked needle, paired evenly with the lengths.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    distractors: int = field(default=3, kw_only=True)
    depths: tuple[float, ...] = field(default=(0.1, 0.3, 0.5, 0.7, 0.9), kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self, self.depths)
        check_count(self, "distractors", self.distractors, 1, MOST - 1)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, count = self.rng(index), 1 + self.distractors
        drawn = Numbered.draw(rng, self.split, count, count)
        depth = turn(self, index, self.depths)
        owner, *others = drawn.owners
        value, *other_values = drawn.values
        needles = [drawn.hidden(depth, owner, value, "needle", "answer")]
        needles += [
            drawn.hidden(rng.random(), other, number, f"distractor_{i}")
            for i, (other, number) in enumerate(zip(others, other_values, strict=True))
        ]
        question = f"What is the number of the {drawn.thing} of {owner}?"
        asked = Asked(TASK, question, drawn.lead(owner), value, self.chat)
        facts = {"depth": depth, "key": owner, "distractors": self.distractors}
        return Item(hide(self, index, tokenizer, asked, needles, facts).encode(tokenizer))
