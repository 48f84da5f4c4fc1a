from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count
from headscope.evals.hiding import Hidden, hide
from headscope.evals.numbered import TASK, Numbered
from headscope.evals.several import listed, several
from headscope.prompts.asking import Asked


@dataclass(frozen=True)
class MultiValueNeedle(Eval):
    """All numbers of one person's things, in the order in which the text gives them.

    Every needle reads "One ticket of Amina has the number 12345.", at a random depth; the forced
    answer is "All numbers in the order of the text: the tickets of Amina have the numbers 12345 and
    67890". Digits count, commas and "and" do not. Spans: "needle_0", "answer_0", ... in that order.

    Source: "niah_multivalue" in RULER (Hsieh et al. 2024, arXiv 2404.06654): four values of seven
    digits, in any order. Sentences, names and prose are headscope's own.

    Attributes:
        values: how many, all asked for; with three a model of 135M parameters fails at 512 tokens.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    values: int = field(default=2, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "values", self.values, 2, 100)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng(index)
        drawn = Numbered.draw(rng, self.split, 1, self.values)
        (owner,), thing = drawn.owners, drawn.thing
        depths = sorted(rng.random() for _ in drawn.values)
        sentence = f"One {thing} of {owner} has the number"
        needles = [
            Hidden(depth, f"{sentence} {value}.", f"needle_{i}", value, f"answer_{i}")
            for i, (depth, value) in enumerate(zip(depths, drawn.values, strict=True))
        ]
        question = (
            f"Which numbers do the {thing}s of {owner} have? Give all, in the order of the text."
        )
        lead = f"All numbers in the order of the text: the {thing}s of {owner} have the numbers"
        asked = Asked(TASK, question, lead, listed(drawn.values), self.chat)
        facts = {"key": owner, "values": self.values}
        draft = hide(self, index, tokenizer, asked, needles, facts)
        return several(draft, drawn.values, tokenizer)
