"""A list of keys and values, and a question for the value of one key."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.asking import Asked
from headscope.prompts.base import SPLITS, Prompt, PromptFamily, Range, Split
from headscope.prompts.pairing import paired
from headscope.prompts.vocabulary import common_words

_TASK = "Below is a JSON object. Find the value of the key that is asked for."


@dataclass(frozen=True)
class KeyValue(PromptFamily):
    """Random pairs of a key and a value as lines of JSON; the answer begins the line again.

    Each place in the list is asked for equally often. After the key-value retrieval of Liu et al.
    2023, "Lost in the Middle" (arXiv 2307.03172), where keys and values are random UUIDs; here
    keys are common words and values five-digit numbers, so that a small model can do it.

    Spans: "pair_0", "pair_1", ... (a key and its value each, without the comma), "needle" (the
    pair asked for), "answer" (its value), "question".

    Attributes:
        pairs: how many.
        split: which third of words and numbers is used; thirds share nothing.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    pairs: int = 12
    split: Split = "detect"
    chat: bool | None = None

    def __post_init__(self) -> None:
        known = len(common_words(self.split))
        if not 1 <= self.pairs <= known:
            raise HeadscopeError(f"Ask for 1 to {known} pairs, not {self.pairs}.")

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        rng = self.rng(index, self.split)
        (slot,) = paired(self.rng("cells"), index, range(self.pairs))
        keys = rng.sample(common_words(self.split), self.pairs)
        numbers = range(10_000 + SPLITS.index(self.split), 100_000, len(SPLITS))
        values = [str(number) for number in rng.sample(numbers, self.pairs)]
        text, spans = "{\n", dict[str, Range]()
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            text += "  "
            start = len(text)
            text += f'"{key}": {value}'
            spans[f"pair_{i}"] = (start, len(text))
            if i == slot:
                spans["needle"] = spans[f"pair_{i}"]
                spans["answer"] = (len(text) - len(value), len(text))
            text += ",\n" if i < self.pairs - 1 else "\n}"
        question = f'What is the value of the key "{keys[slot]}"?'
        lead = f'  "{keys[slot]}":'
        asked = Asked(_TASK, question, lead, values[slot], self.chat)
        facts = {"slot": slot, "pairs": self.pairs, "key": keys[slot]}
        return asked.about(text, spans, tokenizer, facts).encode(tokenizer)
