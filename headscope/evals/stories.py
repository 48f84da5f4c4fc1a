"""Small stories of people who go to places, with things in their hands or without."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.changing import choice, swapped
from headscope.evals.drawing import third
from headscope.evals.hiding import Hidden, hide
from headscope.prompts.asking import Asked

# None of the people and hardly one of the places stands in the prose around them.
PEOPLE = tuple(
    """
    Clara Simon Emma Oscar Helen Victor Rosa Hugo Ruth Karl Lucy Leon Diana Marcus Nina Gabriel
    Hannah Ivan Olivia Felix Monica Carlos Judith Miguel Esther Ahmed Naomi Pedro Martha Louis
    Teresa Neil Isabel Albert Abigail Ethan
    """.split()
)
PLACES = tuple(
    """
    kitchen garden bathroom bedroom studio library garage attic bakery museum church barn forest
    castle chapel basement classroom tower
    """.split()
)
THINGS = tuple(
    """
    apple ball book bottle basket candle letter kite spoon pencil doll blanket newspaper flute lamp
    hammer pillow mirror
    """.split()
)
_GOING = ("went to the", "walked to the", "ran to the", "hurried to the")
_TASK = "Read the text. Remember where everybody is, and what they carry."


@dataclass(frozen=True)
class Event:
    """A sentence of a story, and the place at its end; none where it tells of no place."""

    text: str
    place: str = ""


def going(rng: random.Random, who: str, place: str) -> Event:
    """Somebody goes to a place."""
    return Event(f"{who} {rng.choice(_GOING)} {place}.", place)


def mixed(rng: random.Random, scripts: Sequence[Sequence[Event]]) -> list[Event]:
    """The events of several people as one story, those of each in their order."""
    turns = [who for who, script in enumerate(scripts) for _ in script]
    rng.shuffle(turns)
    left = [iter(script) for script in scripts]
    return [next(left[who]) for who in turns]


def where(
    task: Eval,
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    chat: bool | None,
    subject: str,
    story: Sequence[Event],
    answer: str,
    other: str,
) -> Item:
    """The question where somebody or something is, as a choice between the places of a split.

    Every place is gone to once at most. The sentences are spread over the prose in their order;
    "fact_0", "fact_1", ... are their spans, "needle" that of the one with the answer.

    Args:
        answer: the right place.
        other: one that is right instead where the two places are in each other's sentence.
    """
    rng = task.rng("depths", index)
    depths = sorted(rng.random() for _ in story)
    sentences = [
        Hidden(depth, event.text, f"fact_{i}", event.place, f"place_{i}")
        for i, (depth, event) in enumerate(zip(depths, story, strict=True))
    ]
    places = [event.place for event in story]
    slot = places.index(answer)
    facts = {"depth": depths[slot], "slot": slot, "facts": len(story)}
    question, lead = f"Where is {subject} now?", f"{subject[0].upper()}{subject[1:]} is now in the"
    asked = Asked(_TASK, question, lead, answer, chat)
    draft = hide(task, index, tokenizer, asked, sentences, facts)
    named = {"needle": draft.spans[f"fact_{slot}"], "answer": draft.spans[f"place_{slot}"]}
    draft = replace(draft, spans={**draft.spans, **named})
    others = [place for place in third(PLACES, task.split) if place != answer]
    swap = swapped(draft, f"place_{slot}", f"place_{places.index(other)}")
    return choice(draft, tokenizer, others, swap)
