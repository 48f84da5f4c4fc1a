"""Sentences of our own between those of a passage of filler."""

from collections.abc import Sequence
from dataclasses import dataclass

from headscope.prompts import filler
from headscope.prompts.base import Range


@dataclass(frozen=True)
class Woven:
    """A passage with sentences in it.

    Attributes:
        text: all of it.
        sentences: the characters of every sentence in order, placed ones among them. The first
            and last of the filler may be cut; a paragraph ends a sentence, and so does an
            abbreviation's point.
        placed: the characters of the placed sentences.
    """

    text: str
    sentences: list[Range]
    placed: list[Range]

    def numbered(self) -> dict[str, Range]:
        """The sentences as spans "sentence_0", "sentence_1", ..."""
        return {f"sentence_{i}": span for i, span in enumerate(self.sentences)}


def weave(passage: Sequence[str], placed: Sequence[tuple[float, str]]) -> Woven:
    """Place sentences at relative depths, each between the two sentences nearest to its depth.

    Args:
        passage: words of filler.
        placed: depths from 0 to 1, rising, and sentences.
    """
    ends = {i for i, word in enumerate(passage, 1) if _ends_sentence(word)}
    edges = sorted({0, *ends, len(passage)})
    places = [
        (min(edges, key=lambda edge: abs(edge - round(depth * len(passage)))), sentence)
        for depth, sentence in placed
    ]
    paragraphs = {i for i, word in enumerate(passage, 1) if word.endswith("\n")}
    text, start = "", 0
    woven, own = list[Range](), list[Range]()
    glue = ""

    def add(sentence: str, glue: str) -> Range:
        nonlocal text
        text += glue + sentence
        woven.append((len(text) - len(sentence), len(text)))
        return woven[-1]

    for stop in sorted({0, *ends, *paragraphs, len(passage)}):
        if stop > start:
            add(filler.join(list(passage[start:stop])), glue)
            glue = "\n\n" if stop in paragraphs else " "
        for place, sentence in places:
            if place == stop:
                own.append(add(sentence, " " if text else ""))
                glue = " "
        start = stop
    return Woven(text, woven, own)


def _ends_sentence(word: str) -> bool:
    return word.rstrip("\"')”’\n").endswith((".", "!", "?"))
