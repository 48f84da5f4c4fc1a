"""Several passkeys in running prose, one of which is asked for."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts import filler
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.base import Prompt, PromptFamily, Split
from headscope.prompts.fitting import fitted
from headscope.prompts.pairing import paired
from headscope.prompts.vocabulary import common_words
from headscope.prompts.weaving import weave

ORDINALS = tuple("first second third fourth fifth sixth seventh eighth ninth tenth".split())
_TASK = "Read the text. Some sentences in it name passkeys to a vault; remember them."


@dataclass(frozen=True)
class Passkeys(PromptFamily):
    """Ordinal passkeys of a few words each, at random depths of the filler.

    They stand in the order of their ordinals, between sentences; no two share a word. One of them
    is asked for, each equally often at each length, or all of them, one after the other. A model
    of 135M parameters finds passkeys better than ordinals: with five it often names another one,
    with three it seldom does. After the synthetic task of DuoAttention (Xiao et al. 2024, arXiv
    2410.10819), which asks for all passkeys, of 32 words each, in books; words, sentences and
    filler are headscope's own.

    Spans: "passkey_0", "passkey_1", ... (a sentence each), "needle" (the one asked for, or said
    first), "answer" (its words), "question".

    Attributes:
        passkeys: how many, up to ten.
        words: words in each.
        lengths: lengths of the prompt in tokens, met within 1 % and never exceeded.
        split: which third of filler and words is used; thirds share nothing.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
        every: whether all of them are asked for; the answer then repeats their sentences in order.
    """

    passkeys: int = 5
    words: int = 4
    lengths: tuple[int, ...] = (512, 1024)
    split: Split = "detect"
    chat: bool | None = None
    every: bool = False

    def __post_init__(self) -> None:
        known = len(common_words(self.split))
        if not 1 <= self.passkeys <= len(ORDINALS) or self.words < 1 or not self.lengths:
            raise HeadscopeError("Passkeys need 1 to 10 of them, a word or more each, and lengths.")
        if self.passkeys * self.words > known:
            raise HeadscopeError(
                f"Passkeys share no words and there are {known}; ask for fewer or shorter ones."
            )

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        rng = self.rng(index, self.split)
        which = range(self.passkeys)
        length, asked_for = paired(self.rng("cells"), index, self.lengths, which)
        drawn = rng.sample(common_words(self.split), self.passkeys * self.words)
        keys = [" ".join(drawn[i :: self.passkeys]) for i in which]
        # Said again right before the words, the ordinal is what a small model goes by.
        leads = [f"The {ORDINALS[i]} passkey to the vault, the {ORDINALS[i]}:" for i in which]
        depths = sorted(rng.random() for _ in which)
        placed = [
            (depth, f"{lead} {key}.") for depth, lead, key in zip(depths, leads, keys, strict=True)
        ]
        question = f"What is the {ORDINALS[asked_for]} passkey to the vault?"
        answer = keys[asked_for]
        if self.every:
            asked_for, question = 0, "What are the passkeys to the vault, in their order?"
            said = (f"{lead} {key}." for lead, key in zip(leads, keys, strict=True))
            answer = " ".join(said).removeprefix(f"{leads[0]} ")
        asked = Asked(_TASK, question, leads[asked_for], answer, self.chat)
        facts = {"length": length, "asked": asked_for, "passkeys": self.passkeys}
        facts |= {"depth": depths[asked_for]}

        def draft(words: list[str]) -> Draft:
            woven = weave(words, placed)
            spans = {f"passkey_{i}": span for i, span in enumerate(woven.placed)}
            start, stop = spans["needle"] = woven.placed[asked_for]
            spans["answer"] = (start + len(leads[asked_for]) + 1, stop - 1)
            return asked.about(woven.text, spans, tokenizer, facts)

        start = rng.randrange(len(filler.words(self.split)))
        return fitted(tokenizer, length, self.split, start, draft).encode(tokenizer)
