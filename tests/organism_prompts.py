"""Prompts that the organisms understand, in token ids, with the spans that probes ask for.

Tests alone use them: a class whose name begins with an underscore is in no registry.
"""

import random
from dataclasses import dataclass

from organism_kinds import (
    BOS,
    CONTEXT,
    DOCUMENT,
    DOCUMENTS,
    FILLER,
    NEWLINE,
    QUESTION,
    STOP,
    TITLES,
    TOPICS,
    topic_words,
)
from transformers import PreTrainedTokenizerBase

from headscope.prompts.base import Prompt, PromptFamily, Range

KEY, ANSWER = 3, 4  # words that a question has from a fact, and words that it wants
ASKING = QUESTION - KEY  # words of the question before those


class _Writing:
    """Token ids and the spans in them, as they are written down."""

    def __init__(self, rng: random.Random) -> None:
        self.filler = iter(rng.sample(FILLER, len(FILLER)))
        self.ids: list[int] = [BOS]
        self.spans: dict[str, Range] = {}

    def say(self, tokens: list[int], *names: str) -> None:
        for name in names:
            self.spans[name] = (len(self.ids), len(self.ids) + len(tokens))
        self.ids += tokens

    def words(self, count: int) -> list[int]:
        """Words of no topic, none of them said before."""
        return [next(self.filler) for _ in range(count)]

    def prompt(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer: list[int] | None = None,
        facts: dict[str, int | float | str] | None = None,
    ) -> Prompt:
        said = str(tokenizer.decode(answer)) if answer else ""
        ids = tuple(self.ids)
        return Prompt(ids, self.spans, said, tuple(answer or ()), facts or {})


@dataclass(frozen=True)
class _Blocks(PromptFamily):
    """The start, then a block of distinct words of no topic several times over."""

    samples: int = 1
    block: int = 46
    times: int = 4

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        written = _Writing(self.rng(index))
        block = written.words(self.block)
        for _ in range(self.times):
            written.say(block)
        return written.prompt(tokenizer)


@dataclass(frozen=True)
class _Prose(PromptFamily):
    """Words that come once, with full stops at a few places, the first of them near the start."""

    samples: int = 1
    stops: tuple[int, ...] = (8, 70, 130)

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        rng = self.rng(index)
        written = _Writing(rng)
        for stop in self.stops:
            written.say(written.words(stop + rng.randrange(6) - len(written.ids)))
            written.say([STOP])
        written.say(written.words(CONTEXT - len(written.ids)))
        return written.prompt(tokenizer)


def _fact(rng: random.Random, topic: int) -> tuple[list[int], list[int]]:
    """Words of one topic: those that a question repeats, and those that answer it."""
    words = rng.sample(topic_words(topic), KEY + ANSWER)
    return words[:KEY], words[KEY:]


@dataclass(frozen=True)
class _Haystack(PromptFamily):
    """Sentences of no topic; among them a fact of the asked topic and two of others."""

    samples: int = 3
    sentences: int = 10
    length: int = 11

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        rng = self.rng(index)
        written = _Writing(rng)
        asked, *other = rng.sample(range(TOPICS), 3)
        key, answer = _fact(rng, asked)
        # Far from the question, and not the first sentence.
        needle, *distractors = rng.sample(range(1, self.sentences - 3), 3)
        for i in range(self.sentences):
            if i == needle:
                at = len(written.ids) + len(key)
                written.spans["answer"] = (at, at + len(answer))
                written.say([*key, *answer, NEWLINE], "needle", f"sentence_{i}")
            elif i in distractors:
                words, more = _fact(rng, other[distractors.index(i)])
                written.say([*words, *more, NEWLINE], f"sentence_{i}")
            else:
                written.say([*written.words(self.length), STOP], f"sentence_{i}")
        written.say([*written.words(ASKING), *key], "question")
        written.spans["user"] = (1, len(written.ids))
        return written.prompt(tokenizer, answer)


@dataclass(frozen=True)
class _Library(PromptFamily):
    """Documents of a title, a topic's words and a fact; the question is about one of them."""

    samples: int = 8
    before: int = 3  # words of its topic before the fact, beside the title

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        rng = self.rng(index)
        written = _Writing(rng)
        # Every topic and the answer stand in every slot equally often.
        shift = self.rng("topics").sample(range(TOPICS), TOPICS)[index % TOPICS]
        slot = self.rng("slots").sample(range(DOCUMENTS), DOCUMENTS)[index % DOCUMENTS]
        key: list[int] = []
        answer: list[int] = []
        for i, title in enumerate(TITLES):
            words = rng.sample(topic_words((i + shift) % TOPICS), DOCUMENT - 3)
            start = len(written.ids)
            written.say([title, *words[: self.before]])
            fact = words[self.before : self.before + KEY + ANSWER]
            if i == slot:
                key, answer = fact[:KEY], fact[KEY:]
                at = len(written.ids) + KEY
                written.spans["answer"] = (at, at + ANSWER)
                written.say([*fact, NEWLINE], "needle")
            else:
                written.say([*fact, NEWLINE])
            written.say([*words[self.before + KEY + ANSWER :], STOP])
            written.spans[f"doc_{i}"] = (start, len(written.ids))
            if i == slot:
                written.spans["gold"] = written.spans[f"doc_{i}"]
        written.say([*written.words(ASKING), *key], "question")
        return written.prompt(tokenizer, answer, {"slot": slot, "documents": DOCUMENTS})


@dataclass(frozen=True)
class _Turn(PromptFamily):
    """What a user says between the marks of a chat template: a few sentences of no topic."""

    samples: int = 2
    said: int = 120
    mark: int = QUESTION  # tokens of the template before it, and behind it

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        written = _Writing(self.rng(index))
        written.say(written.words(self.mark))
        written.say(written.words(self.said), "user", "question")
        written.say(written.words(self.mark))
        return written.prompt(tokenizer)


BLOCKS, PROSE, HAYSTACK, LIBRARY, TURN = _Blocks(), _Prose(), _Haystack(), _Library(), _Turn()
FEW_LIBRARIES = _Library(samples=2)  # where slots need not be balanced
