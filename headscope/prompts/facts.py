"""What needles say: made-up people, and facts about them in three kinds."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One way to say a fact, to ask for it, and to begin the answer.

    `{key}` is a name and `{answer}` the fact; `answers` is None where it is a five-digit number.
    """

    needle: str
    question: str
    lead: str
    answers: tuple[str, ...] | None = None

    def draw(self, rng: random.Random, part: int, parts: int = 3) -> str:
        """An answer of one of several parts; no two parts share one."""
        if self.answers is None:
            return str(rng.randrange(10_000, 99_999, parts) + part)
        return rng.choice(self.answers[part::parts])

    def fill(self, key: str, answer: str) -> tuple[str, str, str]:
        """The needle, the question and the start of its answer."""
        return (
            self.needle.format(key=key, answer=answer),
            self.question.format(key=key),
            self.lead.format(key=key),
        )


KEYS = tuple(
    """
    Amina Bertil Chiara Darius Elodie Farouk Greta Hiroshi Ingrid Jonas Katya Lorenzo Mireille
    Nikhil Oksana Pavel Quentin Rosalind Soraya Tobias Ursula Viktor Wanda Xavier Yasmin Zoltan
    Agnes Boris Camille Dmitri Esther Fabian Gudrun Hamid Irina Jasper
    """.split()
)

_WORDS = tuple(
    """
    lantern walnut harbor velvet pepper basket marble thunder button copper violin saddle garlic
    falcon pillow candle magnet turtle ribbon cactus helmet barrel mirror napkin shovel trumpet
    wagon blanket compass feather hammer kettle ladder muffin pencil rocket
    """.split()
)

_HABITS = tuple(
    line.strip()
    for line in """
    repairs old clocks in the attic of the mill
    bakes rye bread for the night watchmen of the port
    paints small boats on the walls of the school
    plays chess against the retired ferry captain
    collects wild mushrooms along the northern railway
    teaches the neighbours to fold paper cranes
    walks two grey donkeys around the frozen lake
    copies star maps in the library of the monastery
    carves wooden spoons beside the blue fountain
    mends fishing nets under the iron bridge
    tunes the broken piano of the village inn
    waters the lemon trees on the roof of the bank
    """.strip().splitlines()
)

FACTS: dict[str, tuple[Fact, ...]] = {
    "number": (
        Fact(
            "The locker code of {key} is {answer}.",
            "What is the locker code of {key}?",
            "The locker code of {key} is",
        ),
        Fact(
            "The parcel for {key} has the number {answer}.",
            "What is the number of the parcel for {key}?",
            "The parcel for {key} has the number",
        ),
        Fact(
            "The library card of {key} carries the number {answer}.",
            "Which number does the library card of {key} carry?",
            "The library card of {key} carries the number",
        ),
    ),
    "word": (
        Fact(
            "In the red drawer {key} keeps a {answer}.",
            "What does {key} keep in the red drawer?",
            "In the red drawer {key} keeps a",
            _WORDS,
        ),
        Fact(
            "The thing that {key} hid in the cellar is a {answer}.",
            "What did {key} hide in the cellar?",
            "The thing that {key} hid in the cellar is a",
            _WORDS,
        ),
        Fact(
            "For the summer fair {key} painted a {answer}.",
            "What did {key} paint for the summer fair?",
            "For the summer fair {key} painted a",
            _WORDS,
        ),
    ),
    "sentence": (
        Fact(
            "On rainy Sundays {key} {answer}.",
            "What does {key} do on rainy Sundays?",
            "On rainy Sundays {key}",
            _HABITS,
        ),
        Fact(
            "Every winter {key} {answer}.",
            "What does {key} do every winter?",
            "Every winter {key}",
            _HABITS,
        ),
        Fact(
            "After work {key} {answer}.",
            "What does {key} do after work?",
            "After work {key}",
            _HABITS,
        ),
    ),
}
