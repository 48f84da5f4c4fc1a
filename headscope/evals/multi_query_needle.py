from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import check_count
from headscope.evals.hiding import hide
from headscope.evals.numbered import MOST, TASK, Numbered
from headscope.evals.several import listed, several
from headscope.prompts.asking import Asked


@dataclass(frozen=True)
class MultiQueryNeedle(Eval):
    """The numbers of several people's things, in the order in which they are asked for.

    Every needle reads "The ticket of Amina has the number 12345.", at a random depth, and all are
    asked for; the forced answer is "The tickets of Amina and Boris have the numbers 12345 and
    67890". Digits count, commas and "and" do not. Spans: "needle_0", "answer_0", ... in
    the order of the question, which need not be that of the text.

    Source: "niah_multiquery" in RULER (Hsieh et al. 2024, arXiv 2404.06654): four keys, their
    values of seven digits in any order. Sentences, names and prose are headscope's own.

    Attributes:
        queries: how many; with three a model of 135M parameters fails at 512 tokens.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    queries: int = field(default=2, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "queries", self.queries, 2, MOST)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng(index)
        drawn = Numbered.draw(rng, self.split, self.queries, self.queries)
        needles = [
            drawn.hidden(rng.random(), owner, value, f"needle_{i}", f"answer_{i}")
            for i, (owner, value) in enumerate(zip(drawn.owners, drawn.values, strict=True))
        ]
        things = f"the {drawn.thing}s of {listed(drawn.owners)}"
        question = f"Which numbers do {things} have?"
        lead = f"T{things[1:]} have the numbers"
        asked = Asked(TASK, question, lead, listed(drawn.values), self.chat)
        facts = {"key": listed(drawn.owners), "values": self.queries}
        draft = hide(self, index, tokenizer, asked, needles, facts)
        return several(draft, drawn.values, tokenizer)
