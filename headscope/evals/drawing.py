"""What evals draw: thirds of things, numbers, made-up words, and places taken in turn."""

import random
from collections.abc import Sequence
from typing import TypeVar

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.prompts.base import SPLITS, Split

T = TypeVar("T")

# Few enough that neither words nobody wants to read come out, nor the "VAR" before a variable.
_CONSONANTS, _VOWELS = "bdflmnrstw", "aeiou"


def third(things: Sequence[T], split: Split) -> Sequence[T]:
    """A third of some things; no two splits share one."""
    return things[SPLITS.index(split) :: len(SPLITS)]


def numbers(rng: random.Random, split: Split, count: int, digits: int = 5) -> list[str]:
    """Different numbers of so many digits; no two splits share one."""
    drawn = rng.sample(third(range(10 ** (digits - 1), 10**digits), split), count)
    return [str(number) for number in drawn]


def invented(rng: random.Random, split: Split, count: int, letters: int) -> list[str]:
    """Different made-up words of consonants and vowels in turn; no two splits share one.

    Any ten in a row begin with different letters. Of each letter, a split has ten words of three
    letters at the least, and fifty of four.
    """
    begins = third([a + b for a in _CONSONANTS for b in _VOWELS], split)
    order, found = rng.sample(_CONSONANTS, len(_CONSONANTS)), dict[str, None]()
    while len(found) < count:
        first = order[len(found) % len(order)]
        word = rng.choice([begin for begin in begins if begin[0] == first])
        word += "".join(rng.choice(_VOWELS if i % 2 else _CONSONANTS) for i in range(letters - 2))
        found[word] = None
    return list(found)


def turn(task: Eval, index: int, places: Sequence[T]) -> T:
    """The place of a sample: of all pairs of a length and a place, as many samples hold each once.

    The lengths are taken in turn, each at another place.
    """
    order = task.rng("places").sample(places, len(places))
    rounds, within = divmod(index, max(1, len(task.lengths)))
    return order[(rounds + within) % len(places)]


def check_places(task: Eval, places: Sequence[float]) -> None:
    """Refuse an eval without a place, or with one that is outside the context."""
    if not places or any(not 0 <= place <= 1 for place in places):
        raise HeadscopeError(f"The eval {task.name!r} needs depths, each between 0 and 1.")


def check_count(task: Eval, what: str, count: int, least: int, most: int) -> None:
    """Refuse a number of things that cannot be made."""
    if not least <= count <= most:
        raise HeadscopeError(
            f"The eval {task.name!r} takes {least} to {most} {what}, not {count}; change that."
        )
