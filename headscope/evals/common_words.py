from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.counting import falling, most_frequent, word_list
from headscope.evals.drawing import check_count
from headscope.evals.listing import filling
from headscope.evals.several import several
from headscope.prompts.asking import Draft
from headscope.prompts.vocabulary import common_words

_TASK = "Below is a numbered list of words. A few words are frequent in it, all others are rare."


@dataclass(frozen=True)
class CommonWords(Eval):
    """The most frequent words of a numbered list, in falling order of frequency.

    Of n words about half are the top k: word i (from 0) stands n (k + 1 - i) / (k² + 3k) times,
    and the other words share the rest evenly. Every top word stands at least once more than the
    next, and the last more than any other. The forced answer is "In falling order, the 3 most
    frequent words are: apple, lemon and bell". Words count, commas and "and" do not. Spans:
    "answer_0", ...: where each word stands first.

    Source: "cwe" in RULER (Hsieh et al. 2024, arXiv 2404.06654), which asks for ten words equally
    frequent, in any order, after an example. Counts, words and wording are headscope's own.

    Attributes:
        words: how many are asked for.
        entries: length of the list where no length is asked for.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    words: int = field(default=3, kw_only=True)
    entries: int = field(default=50, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "words", self.words, 2, 10)
        check_count(self, "entries", self.entries, self._least, 100_000)

    @property
    def _least(self) -> int:
        return 4 * self.words

    def counts(self, entries: int, words: list[str]) -> dict[str, int]:
        """How often each word stands in a list of about so many, the most frequent first."""
        k, others = self.words, len(words) - self.words
        rare = entries // 2
        each = [(rare + others - 1 - i) // others for i in range(others)]
        top = falling([entries * (k + 1 - i) / (k * k + 3 * k) for i in range(k)], max(each))
        return dict(zip(words, [*top, *each], strict=True))

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, known = self.rng(index), common_words(self.split)
        words = rng.sample(known, len(known))
        top = words[: self.words]

        def draft(entries: int, prose: list[str]) -> Draft:
            counts = self.counts(entries, words)
            made = word_list(counts, self.rng(index, "order"), "{i}. {word}", "\n")
            facts = {"length": self.length(index), "entries": sum(counts.values())}
            return most_frequent(made, top, _TASK, prose, self.chat, tokenizer, facts)

        sizes = (self._least, 100_000)
        return several(filling(self, index, tokenizer, draft, sizes, self.entries), top, tokenizer)
