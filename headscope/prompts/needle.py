"""A fact hidden in running prose, and a question about it."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.prompts.base import Prompt
from headscope.prompts.haystack import Haystack


@dataclass(frozen=True)
class Needle(Haystack):
    """Needle in a haystack, with the answer's first words given.

    A sentence about a made-up person stands at a relative depth between sentences of the filler;
    the prompt ends in the first words of the answer, so that a small model says the fact instead
    of something about it. Idea: Kamradt 2023, "Needle in a Haystack"; Wu et al. 2024, arXiv
    2404.15574, for its use in finding heads. Sentences and filler are headscope's own choice.

    Spans: "needle" (the sentence), "answer" (the words of it that answer), "question", and
    "sentence_0", "sentence_1", ...: all sentences of the context in order, the needle among them.
    In a chat also "user", all that the user says (`Chat` has it exact to the token).

    Attributes:
        kind: what is asked for: a five-digit number, a word, or the rest of a sentence.
        lengths: lengths of the prompt in tokens, met within 1 % and never exceeded.
        depths: relative places of the needle; lengths and depths are paired evenly.
        split: which third of filler, names and answers is used; thirds share nothing.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    chat: bool | None = None

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        return self.hidden(index, tokenizer, self.chat).encode(tokenizer)
