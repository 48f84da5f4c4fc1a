"""Numbers of people's things: what the evals with several needles hide and ask for."""

import random
from dataclasses import dataclass

from headscope.evals.drawing import numbers, third
from headscope.evals.hiding import Hidden
from headscope.prompts.base import Split
from headscope.prompts.facts import KEYS

TASK = "Read the text. Some sentences in it give numbers of things; remember them."
MOST = len(KEYS) // 3  # owners of a split
_THINGS = ("ticket", "parcel", "locker", "suitcase", "bicycle", "violin")


@dataclass(frozen=True)
class Numbered:
    """One kind of thing, people who own one, and numbers that things have.

    Attributes:
        thing: what has a number.
        owners: people, all different.
        values: five-digit numbers, all different.
    """

    thing: str
    owners: list[str]
    values: list[str]

    @classmethod
    def draw(cls, rng: random.Random, split: Split, owners: int, values: int) -> "Numbered":
        """Of what is used for one split alone."""
        return cls(
            rng.choice(third(_THINGS, split)),
            rng.sample(third(KEYS, split), owners),
            numbers(rng, split, values),
        )

    def lead(self, owner: str) -> str:
        """How the sentence about an owner's thing begins, up to its number."""
        return f"The {self.thing} of {owner} has the number"

    def hidden(self, depth: float, owner: str, value: str, name: str, part: str = "") -> Hidden:
        """The sentence about an owner's thing, as the span `name` with its number as `part`."""
        return Hidden(depth, f"{self.lead(owner)} {value}.", name, value if part else "", part)
