from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.prompts.haystack import Kind
from headscope.prompts.needle import Needle as NeedlePrompts


@dataclass(frozen=True)
class Needle(Eval):
    """A fact about a made-up person in running prose, and a question about it.

    The prompts are those of the prompt family `needle`; the answer is forced by its first words.

    Source: Kamradt 2023, "Needle in a Haystack"; as "niah" in RULER (Hsieh et al. 2024, arXiv
    2404.06654). Sentences and filler are headscope's own.

    Attributes:
        kind: what is asked for: a five-digit number, a word, or the rest of a sentence.
        depths: relative places of the needle, paired evenly with the lengths.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    source = "Kamradt 2023; RULER, Hsieh et al. 2024, arXiv 2404.06654"
    licence = "MIT (needle in a haystack), Apache-2.0 (RULER)"
    lengths: tuple[int, ...] = field(default=(256, 512, 1024), kw_only=True)
    kind: Kind = field(default="number", kw_only=True)
    depths: tuple[float, ...] = field(default=(0.1, 0.3, 0.5, 0.7, 0.9), kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        family = NeedlePrompts(
            samples=self.samples, seed=self.seed, kind=self.kind, lengths=self.lengths,
            depths=self.depths, split=self.split, chat=self.chat,
        )  # fmt: skip
        return Item(family.prompt(index, tokenizer))
