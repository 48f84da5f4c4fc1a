"""Prompts that hide one fact in running prose, whatever stands around them."""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts import filler
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.base import SPLITS, PromptFamily, Split
from headscope.prompts.facts import FACTS, KEYS
from headscope.prompts.fitting import fitted
from headscope.prompts.pairing import paired
from headscope.prompts.weaving import weave

Kind = Literal["number", "word", "sentence"]
_TASK = "Read the text. One sentence in it answers the question that follows."


@dataclass(frozen=True)
class Haystack(PromptFamily):
    """The part that `Needle` and `Chat` share: a sentence about a made-up person in the filler.

    Attributes:
        kind: what is asked for: a five-digit number, a word, or the rest of a sentence.
        lengths: lengths of the prompt in tokens, met within 1 % and never exceeded.
        depths: relative places of the needle; lengths and depths are paired evenly.
        split: which third of filler, names and answers is used; thirds share nothing.
    """

    kind: Kind = "number"
    lengths: tuple[int, ...] = (256, 512, 768, 1024)
    depths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    split: Split = "detect"

    def __post_init__(self) -> None:
        if not self.lengths or not self.depths or any(not 0 <= d <= 1 for d in self.depths):
            raise HeadscopeError("Needles need at least one length, and depths between 0 and 1.")

    def hidden(
        self, index: int, tokenizer: PreTrainedTokenizerBase, chat: bool | None, system: str = ""
    ) -> Draft:
        """The prompt of one index, in the chat template or plain."""
        rng = self.rng(index, self.kind, self.split)
        length, depth = paired(self.rng("cells"), index, self.lengths, self.depths)
        part = SPLITS.index(self.split)
        fact = rng.choice(FACTS[self.kind])
        key = rng.choice(KEYS[part :: len(SPLITS)])
        answer = fact.draw(rng, part)
        start = rng.randrange(len(filler.words(self.split)))
        needle, question, lead = fact.fill(key, answer)
        asked = Asked(_TASK, question, lead, answer, chat, system)
        facts = {"length": length, "depth": depth, "kind": self.kind}
        facts |= {"template": fact.needle, "key": key}

        def draft(words: list[str]) -> Draft:
            woven = weave(words, [(depth, needle)])
            at = woven.placed[0][0]
            inside = at + needle.index(answer)
            spans = {"needle": woven.placed[0], "answer": (inside, inside + len(answer))}
            return asked.about(woven.text, spans | woven.numbered(), tokenizer, facts)

        return fitted(tokenizer, length, self.split, start, draft)
