"""The basin: how much attention documents get, or how often answers are right, by their place."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.curves import band_note, curve, head_lines, shown
from headscope.viz.marks import Line, Look, Rule
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words

if TYPE_CHECKING:
    from headscope.evals.evaluation import Evaluation
    from headscope.evals.measured import Measured

_FACTS = ("slot", "depth")  # what evals call the place of what is asked for


def slot_curve(found: "HeadMap | Evaluation", heads: Sequence[Head | str] | None = None) -> Chart:
    """A curve by the slot that a document stands in.

    Args:
        found: a head map whose scan had the probe `basin`: attention on a token of a document, in
            mean documents of its prompt and head; or an evaluation whose questions know a "slot"
            or a "depth": the share of right answers, or nats where none are to be had.
        heads: of a head map, which; those of the deepest basin if left out.

    Raises:
        HeadscopeError: neither holds such a curve, or there is no such head.
    """
    return _attention(found, heads) if isinstance(found, HeadMap) else _answers(found)


def _attention(found: HeadMap, heads: Sequence[Head | str] | None) -> Chart:
    slots = curve(found, "basin_slots", "basin")
    mean = slots.mean(-1, keepdims=True)
    relative = np.divide(slots, mean, out=np.zeros_like(slots), where=mean > 0)
    x = np.arange(slots.shape[-1], dtype=np.float64)
    lines = head_lines(found, relative, x, shown(found, heads, "basin"), points=True)
    panel = Panel(
        Axis("slot of the document", names=tuple(str(i + 1) for i in range(len(x)))),
        Axis("attention, in mean documents"),
        (Rule(1.0, name="as much in every slot"), *lines),
        width=440.0,
        height=260.0,
    )
    return Chart(
        f"Attention on documents by the slot they stand in: {found.info.model.name}",
        (panel,),
        note=f"Sinks are left out; 1 is the mean of a head's documents. {band_note(slots)}",
    )


def _answers(found: "Evaluation") -> Chart:
    panels = []
    for task in found.tasks:
        known = {name for facts in task.facts[: task.done] for name in facts}
        fact = next((name for name in _FACTS if name in known), None)
        if fact is not None:
            alone = found.model_copy(update={"tasks": [task]})
            panels.append(_panel(task, fact, alone.by(fact)))
    if not panels:
        raise HeadscopeError(
            "No question of this evaluation knows the slot or depth of what is asked for; "
            "evaluate one that does, such as 'documents' or 'needle'."
        )
    return Chart(
        f"Answers by the place of what is asked for: {found.model}",
        tuple(panels),
        columns=min(2, len(panels)),
        note="Bands: 95 % intervals over questions (Wilson for right answers); none of fewer than "
        "6 questions.",
    )


def _panel(task: "Measured", fact: str, table: pd.DataFrame) -> Panel:
    from headscope.evals.measured import UNITS

    column = "exact" if np.isfinite(table["exact"]).any() else "value"
    lines = []
    for i, (condition, rows) in enumerate(table.groupby("condition", sort=False)):
        x, y, low, high = (
            rows[name].to_numpy(np.float64)
            for name in (fact, column, f"{column}.low", f"{column}.high")
        )
        look = Look(themes.INK) if i == 0 else Look.series(i - 1)
        # Named slots stand at whole numbers; depths where they are.
        lines.append(Line(x, y, look, str(condition), low, high, points=True))
    right = column == "exact"
    guess = (Rule(task.chance, name="a guess"),) if right and task.chance else ()
    return Panel(
        Axis(f"{fact} of what is asked for"),
        Axis("right answers" if right else f"{UNITS[task.metric]}, nats",
             0.0 if right else None, 1.02 if right else None),
        (*guess, *lines),
        words(task.task),
        width=320.0,
        height=200.0,
    )  # fmt: skip
