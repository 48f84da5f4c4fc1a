from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.counting import falling, most_frequent, word_list
from headscope.evals.drawing import check_count, invented
from headscope.evals.listing import filling
from headscope.evals.several import several
from headscope.prompts.asking import Draft

_TASK = "Below is a text of made-up words. Ignore the dots, and mind how often each word stands."
_DOTS = "...."
_RANKS = 400  # as many words as `invented` is sure to have, and some to spare


@dataclass(frozen=True)
class FrequentWords(Eval):
    """The most frequent made-up words of a text whose counts follow a zeta distribution.

    The r-th most frequent stands c / r^alpha times, up to rank 400; the first, r = 1, is written
    "....", and asked for are the next `words`, each standing at least once more than the one after
    it. The text is as large as fits. The forced answer is "In falling order, the 3 most frequent
    words are: bafo, dimu and lera". Words count, commas and "and" do not. Spans: "answer_0", ...:
    where each word stands first.

    Source: "fwe" in RULER (Hsieh et al. 2024, arXiv 2404.06654). Words of four letters instead of
    six, counts without ties and wording are headscope's own.

    Attributes:
        words: how many are asked for.
        alpha: how steeply counts fall.
        top: how often the dots stand where no length is asked for.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "Apache-2.0"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    words: int = field(default=3, kw_only=True)
    alpha: float = field(default=2.0, kw_only=True)
    top: int = field(default=40, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "words", self.words, 2, 10)
        check_count(self, "dots", self.top, 1, 100_000)
        if not 1 < self.alpha <= 4:
            raise HeadscopeError(
                f"The eval {self.name!r} needs an alpha above 1 and up to 4, not {self.alpha}."
            )

    def counts(self, top: int) -> list[int]:
        """How often each rank stands, the dots first, until a rank would not stand once."""
        tail = list[int]()
        for rank in range(self.words + 2, _RANKS):
            if (count := round(top / rank**self.alpha)) == 0:
                break
            tail.append(count)
        asked = [top / rank**self.alpha for rank in range(1, self.words + 2)]
        return [*falling(asked, tail[0] if tail else 1), *(tail or [1])]

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        longest = max(self.lengths, default=0)
        most = max(self.top, longest)
        words = [_DOTS, *invented(self.rng(index), self.split, len(self.counts(most)), letters=4)]
        top = words[1 : self.words + 1]

        def draft(size: int, prose: list[str]) -> Draft:
            counts = dict(zip(words, self.counts(size), strict=False))
            made = word_list(counts, self.rng(index, "order"), "{word}", " ")
            facts = {"length": self.length(index), "entries": sum(counts.values())}
            return most_frequent(made, top, _TASK, prose, self.chat, tokenizer, facts)

        return several(filling(self, index, tokenizer, draft, (1, most), self.top), top, tokenizer)
