"""A fact hidden in running prose, and a question about it."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts import filler
from headscope.prompts.base import SPLITS, Prompt, PromptFamily, Split, encode
from headscope.prompts.facts import FACTS, KEYS, Fact

Kind = Literal["number", "word", "sentence"]
_TRIES = 32
_TASK = "Read the text. One sentence in it answers the question that follows.\n\n"


@dataclass(frozen=True)
class Needle(PromptFamily):
    """Needle in a haystack, with the answer's first words given.

    A sentence about a made-up person stands at a relative depth between sentences of the filler;
    the prompt ends in the first words of the answer, so that a small model says the fact instead
    of something about it. Idea: Kamradt 2023, "Needle in a Haystack"; Wu et al. 2024, arXiv
    2404.15574, for its use in finding heads. Sentences and filler are headscope's own choice.

    Spans: "needle" (the sentence), "answer" (the words of it that answer), "question".

    Attributes:
        kind: what is asked for: a five-digit number, a word, or the rest of a sentence.
        lengths: lengths of the prompt in tokens, met within 1 % and never exceeded.
        depths: relative places of the needle; lengths and depths are paired evenly.
        split: which third of filler, names and answers is used; thirds share nothing.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    kind: Kind = "number"
    lengths: tuple[int, ...] = (256, 512, 768, 1024)
    depths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    split: Split = "detect"
    chat: bool | None = None

    def __post_init__(self) -> None:
        if not self.lengths or not self.depths or any(not 0 <= d <= 1 for d in self.depths):
            raise HeadscopeError("Needles need at least one length, and depths between 0 and 1.")

    @cached_property
    def _cells(self) -> list[tuple[int, float]]:
        cells = list(product(self.lengths, self.depths))
        self.rng("cells").shuffle(cells)
        return cells

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        rng = self.rng(index, self.kind, self.split)
        length, depth = self._cells[index % len(self._cells)]
        fact = rng.choice(FACTS[self.kind])
        key = rng.choice(KEYS[SPLITS.index(self.split) :: len(SPLITS)])
        answer = fact.draw(rng, SPLITS.index(self.split))
        start = rng.randrange(len(filler.words(self.split)))
        # A long word can leave a short prompt short of its length; other words then fit better.
        for shift in range(_TRIES):
            passage = filler.passage(self.split, start + shift, length)
            prompt = self._longest(tokenizer, passage, length, (depth, fact, key, answer))
            if len(prompt) >= 0.99 * length:
                return prompt
        raise HeadscopeError(
            f"A needle prompt of {length} tokens cannot be made within 1 %; ask for longer ones."
        )

    def _longest(
        self,
        tokenizer: PreTrainedTokenizerBase,
        passage: list[str],
        length: int,
        needle: tuple[float, Fact, str, str],
    ) -> Prompt:
        """The prompt with as many words of a passage as fit."""
        low, high = 0, len(passage) + 1  # a word is at least one token
        empty = len(self._build(tokenizer, [], *needle))
        if empty > length:
            raise HeadscopeError(
                f"A needle prompt of {length} tokens cannot be made: the question alone takes "
                f"{empty}; ask for longer prompts."
            )
        while high - low > 1:
            middle = (low + high) // 2
            fits = len(self._build(tokenizer, passage[:middle], *needle)) <= length
            low, high = (middle, high) if fits else (low, middle)
        return self._build(tokenizer, passage[:low], *needle)

    def _build(
        self,
        tokenizer: PreTrainedTokenizerBase,
        passage: list[str],
        depth: float,
        fact: Fact,
        key: str,
        answer: str,
    ) -> Prompt:
        cut = _sentence_edge(passage, round(depth * len(passage)))
        before, after = filler.join(passage[:cut]), filler.join(passage[cut:])
        needle, question, lead = fact.fill(key, answer)
        context = " ".join(part for part in (before, needle, after) if part)
        text = f"{_TASK}{context}\n\nQuestion: {question}"
        chat = bool(tokenizer.chat_template) if self.chat is None else self.chat
        text = chat_turn(tokenizer, text) + lead if chat else f"{text}\nAnswer: {lead}"
        at = text.index(needle)
        inside = at + needle.index(answer)
        asked = text.rindex(question)
        return encode(
            tokenizer,
            text,
            {
                "needle": (at, at + len(needle)),
                "answer": (inside, inside + len(answer)),
                "question": (asked, asked + len(question)),
            },
            answer=" " + answer,
            special_tokens=not chat,
            facts={"depth": depth, "kind": self.kind, "template": fact.needle, "key": key},
        )


def chat_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A user's turn in the chat template, up to the start of the assistant's answer."""
    if not tokenizer.chat_template:
        raise HeadscopeError("This tokenizer has no chat template; use plain prompts (chat=False).")
    turn = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def _sentence_edge(passage: list[str], wanted: int) -> int:
    """The place between two sentences that is nearest to a word."""
    ends = [
        i + 1 for i, word in enumerate(passage) if word.rstrip("\"')”’\n").endswith((".", "!", "?"))
    ]
    return min([0, *ends, len(passage)], key=lambda edge: abs(edge - wanted))
