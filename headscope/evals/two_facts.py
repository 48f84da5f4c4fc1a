import random
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.drawing import third
from headscope.evals.stories import PEOPLE, PLACES, THINGS, Event, going, mixed, where


@dataclass(frozen=True)
class TwoFacts(Eval):
    """Where a thing is that somebody has carried: who has it is one fact, where they went another.

    "Emma ran to the attic. Emma picked up the kite. Emma went to the office. ... Question: Where is
    the kite now?"; the forced answer begins "The kite is now in the". Somebody finds a thing, and
    keeps it, carries it on, or carries it on and leaves it; somebody else does the like with
    another thing. It is a choice between the six places of a split. In the corrupt prompt the
    place and that of the other thing are in each other's sentence. Where lengths are asked for, the
    sentences stand in their order at random depths of prose; "depth" is that of the one that
    answers.

    Source: task 2 of bAbI (Weston et al. 2015, arXiv 1502.05698); spread over prose as in BABILong
    (Kuratov et al. 2024, arXiv 2406.10149). Stories, names and prose are headscope's own.

    Attributes:
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "bAbI, Weston et al. 2015, arXiv 1502.05698; BABILong, Kuratov et al. 2024"
    licence = "BSD (bAbI tasks), Apache-2.0 (BABILong)"
    chat: bool | None = field(default=None, kw_only=True)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng = self.rng(index)
        people = rng.sample(third(PEOPLE, self.split), 2)
        things = rng.sample(third(THINGS, self.split), 2)
        places: list[str] = rng.sample(third(PLACES, self.split), len(third(PLACES, self.split)))
        scripts, ends = list[list[Event]](), list[str]()
        for who, thing in zip(people, things, strict=True):
            script, end = _carrying(rng, who, thing, places)
            scripts.append(script)
            ends.append(end)
        story = mixed(rng, scripts)
        return where(self, index, tokenizer, self.chat, f"the {things[0]}", story, *ends)


def _carrying(
    rng: random.Random, who: str, thing: str, places: list[str]
) -> tuple[list[Event], str]:
    """What somebody does with a thing, and where it ends; takes the places that they go to."""
    found, onward, away = (places.pop() for _ in range(3))
    finds = [going(rng, who, found), Event(f"{who} picked up the {thing}.")]
    carries = [*finds, going(rng, who, onward)]
    leaves = [*carries, Event(f"{who} put down the {thing}."), going(rng, who, away)]
    return rng.choice([(finds, found), (carries, onward), (leaves, onward)])
