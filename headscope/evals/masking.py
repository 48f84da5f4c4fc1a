"""Scoring a question under many ablations, and whether an eval leaves any of them room."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.prefix import Prefix
from headscope.evals.scoring import Scored, scored
from headscope.heads import Head
from headscope.interventions.ablate import Ablate, Mode
from headscope.model import HeadModel
from headscope.run import Part

Direction = Literal["drop", "gain"]


def masks_of(
    model: HeadModel, sets: Sequence[Sequence[Head]], mode: Mode, part: Part, seed: int
) -> list[Ablate]:
    """One ablation for each set of heads; what they replace outputs by is measured once."""
    options = Ablate.completed({"heads": (), "mode": mode, "part": part}, model, seed)
    first = Ablate(**options)
    return [dataclasses.replace(first, heads=tuple(heads)) for heads in sets]


def masked_scores(model: HeadModel, item: Item, masks: Sequence[Ablate]) -> list[Scored]:
    """A question under each of the masks, with one prefill for all where that is exact."""
    # A head that is whole while the prompt is read leaves the same cache whatever the set.
    alike = masks[0].reads_prompt_alike and not item.chunk
    return scored(model, item, masks, Prefix.of(model, item.prompt) if alike else None)


def check_room(model: HeadModel, task: Eval, items: Sequence[Item], direction: Direction) -> None:
    """Refuse an eval on which nothing could change as it is said to.

    Raises:
        HeadscopeError: the model answers no question right, or each where a gain is sought.
    """
    if task.metric == "tokens":
        return
    stuck = direction == "gain"  # right answers cannot become more, or wrong ones not more
    if all(scored(model, item)[0].exact == stuck for item in items):
        how = "every question right" if stuck else "no question right"
        advice = "longer or harder" if stuck else "shorter or easier"
        raise HeadscopeError(
            f"{model.name} answers {how} of the {len(items)} of {task.title} before any head is "
            f"ablated, so that there is no room for a {direction}; choose {advice} prompts."
        )
