"""Running prose to hide needles in: the Jargon File, public domain (see data/SOURCE.md)."""

from functools import cache
from importlib.resources import files

from headscope.prompts.base import SPLITS, Split


@cache
def paragraphs(split: Split) -> tuple[str, ...]:
    """A third of the filler's paragraphs, in order; no two splits share one."""
    text = (files("headscope.prompts") / "data" / "filler.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line]
    third = -(-len(lines) // len(SPLITS))
    start = SPLITS.index(split) * third
    return tuple(lines[start : start + third])


@cache
def words(split: Split) -> tuple[str, ...]:
    """The same, word by word; the last word of a paragraph ends in a blank line."""
    return tuple(
        word + ("\n\n" if last else "")
        for paragraph in paragraphs(split)
        for word, last in _marked(paragraph.split())
    )


def _marked(line: list[str]) -> list[tuple[str, bool]]:
    return [(word, i == len(line) - 1) for i, word in enumerate(line)]


def passage(split: Split, start: int, length: int) -> list[str]:
    """`length` words from word `start` on, round and round."""
    source = words(split)
    return [source[(start + i) % len(source)] for i in range(length)]


def join(passage: list[str]) -> str:
    """Words as text: blank lines between paragraphs, single spaces elsewhere."""
    return "".join(word if word.endswith("\n") else word + " " for word in passage).strip()
