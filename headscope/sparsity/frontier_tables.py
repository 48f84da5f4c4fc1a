"""Profiles of equal cost as tables, and sentences about what sets them apart."""

from math import isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from headscope.evals.gates import gate, mean_interval
from headscope.evals.measured import UNITS, Measured
from headscope.evals.multiplicity import holm
from headscope.evals.statistics import (
    empirical_p,
    least_prompts,
    paired_proportions,
    sign_flip_p,
    two_way_bootstrap,
)
from headscope.evals.worded import with_interval

if TYPE_CHECKING:
    from headscope.sparsity.frontier import Made, Pareto

LEVEL = 0.05
OTHERS: tuple["Made", ...] = ("score", "uniform", "random")


def table(found: "Pareto", task: int) -> pd.DataFrame:
    """See `Pareto.table`."""
    measured, seed = found.evaluation.tasks[task], found.evaluation.seed
    base, rows = measured.exact(0), []
    for budget in found.budgets:
        for made in ("planner", *OTHERS):
            points = found.of(budget, made)
            if not points:
                continue
            places = [point.condition for point in points]
            row: dict[str, Any] = {"budget": budget, "profile": points[0].name}
            row |= {"profiles": len(points), "share": points[0].share}
            changes = np.stack([measured.values(i) - measured.values(0) for i in places])
            right = [measured.exact(i) for i in places]
            exact = np.array([nan if each is None else each.mean() for each in right])
            row["exact"] = float(exact.mean())
            row |= _of_dense(right, base, made == "random")
            row["change"] = float(changes.mean())
            ends = mean_interval(changes[0], seed)
            if made == "random":
                ends = float(changes.mean(1).min()), float(changes.mean(1).max())
            row |= {"change.low": ends[0], "change.high": ends[1]}
            rows.append(row)
    return pd.DataFrame(rows)


def _of_dense(
    right: list[np.ndarray | None], base: np.ndarray | None, several: bool
) -> dict[str, float]:
    """Right answers as a share of the whole model's, with an interval or a range."""
    names = ("of_dense", "of_dense.low", "of_dense.high")
    if base is None or not base.any():
        return dict.fromkeys(names, nan)
    dense = float(base.mean())
    gaps = [each.astype(float) - base for each in right if each is not None]
    means = [float(gap.mean()) for gap in gaps]
    low, high = (min(means), max(means)) if several else paired_proportions(gaps[0])
    # No more than all answers are right, and no fewer than none.
    return {
        name: min(max(0.0, 1 + gap / dense), 1 / dense)
        for name, gap in zip(names, (float(np.mean(means)), low, high), strict=True)
    }


def differences(found: "Pareto", task: int) -> pd.DataFrame:
    """See `Pareto.differences`."""
    measured, seed = found.evaluation.tasks[task], found.evaluation.seed
    rows: list[dict[str, Any]] = []
    for budget in found.budgets:
        (mine,) = found.of(budget, "planner")
        for made in OTHERS:
            points = found.of(budget, made)
            if points:
                row = {"budget": budget, "other": points[0].name, "profiles": len(points)}
                places = [point.condition for point in points]
                if made == "random":
                    rows.append(row | _beside_random(measured, mine.condition, places, seed))
                else:
                    rows.append(row | _beside(measured, mine.condition, places[0], seed))
    # One random comparison a budget and one other kind a budget are two families; evals multiply.
    evals = len(found.evaluation.tasks)
    for random in (False, True):
        family = [row for row in rows if isnan(row["rank"]) != random]
        if family:
            corrected = holm(np.array([row["p"] for row in family]))
            for row, p in zip(family, corrected, strict=True):
                row["p"] = min(1.0, float(p) * evals)
    return pd.DataFrame(rows)


def _beside(measured: Measured, mine: int, other: int, seed: int) -> dict[str, float]:
    value = measured.values(mine) - measured.values(other)
    right, theirs = measured.exact(mine), measured.exact(other)
    exact = (nan, nan, nan)
    if right is not None and theirs is not None:
        gap = right.astype(float) - theirs
        exact = (float(gap.mean()), *paired_proportions(gap))
    row = _numbers("exact", exact)
    row |= _numbers("value", (float(value.mean()), *mean_interval(value, seed)))
    return row | {"rank": nan, "p": sign_flip_p(value, seed)}


def _beside_random(measured: Measured, mine: int, others: list[int], seed: int) -> dict[str, float]:
    value = measured.values(mine)
    theirs = np.stack([measured.values(i) for i in others])
    row = _numbers("value", _gap(value, theirs, seed))
    right, drawn = measured.exact(mine), [measured.exact(i) for i in others]
    exact = (nan, nan, nan)
    if right is not None:
        answers = np.stack([each for each in drawn if each is not None]).astype(float)
        exact = _gap(right.astype(float), answers, seed)
    row |= _numbers("exact", exact)
    means = theirs.mean(1)
    rank = int((means >= value.mean()).sum())
    return row | {"rank": rank, "p": empirical_p(float(value.mean()), means)}


def _gap(mine: np.ndarray, others: np.ndarray, seed: int) -> tuple[float, float, float]:
    middle = float(mine.mean() - others.mean())
    if len(mine) < least_prompts() or len(others) < 2:
        return middle, nan, nan
    return middle, *two_way_bootstrap(mine, others, seed)


def _numbers(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return {name: values[0], f"{name}.low": values[1], f"{name}.high": values[2]}


def claims(found: "Pareto", task: int) -> list[str]:
    """See `Pareto.claims`."""
    measured = found.evaluation.tasks[task]
    if not measured.done:
        return []
    right = measured.exact(0)
    stuck = "" if right is None else gate(right, measured.chance)
    note = " The whole model's right answers stand at the floor." if stuck == "floor" else ""
    return [
        _claim(found, measured, row) + note for row in differences(found, task).to_dict("records")
    ]


def _claim(found: "Pareto", measured: Measured, row: Any) -> str:
    mine = found.of(row["budget"], "planner")[0].condition
    value = with_interval(row, "value", "+")
    random = not isnan(row["rank"])
    other = f"the mean of {row['profiles']} random profiles" if random else row["other"]
    answers = ""
    right = measured.exact(mine)
    if right is not None:
        exact = with_interval(row, "exact", "+")
        answers = f"answers {right.mean():.2f} right, {exact} against {other}, and "
    said = (
        f"On {measured.done} questions of {measured.task} at {found.budget_kind} "
        f"{row['budget']:g}, the planned profile {answers}the {UNITS[measured.metric]} is "
        f"{value} nats against {other}: "
    )
    corrected = f"p = {row['p']:.2g}, corrected for all budgets, others and evals"
    against = (row["exact.high"] < 0 < row["value"]) or (row["value"] < 0 < row["exact.low"])
    if random:
        told = f"{int(row['rank'])} of them do at least as well ({corrected})"
        comparisons = len(found.budgets) * len(found.evaluation.tasks)
        if comparisons / (1 + row["profiles"]) > LEVEL:
            return f"{said}{told}; so few random profiles allow no claim."
        matters = row["p"] <= LEVEL and not against
        verdict = "the choice of heads matters" if matters else "nothing is claimed"
        return f"{said}{told}; {verdict}."
    told = row["value.low"] > 0 or row["value.high"] < 0
    if not told or row["p"] > LEVEL:
        return f"{said}nothing is claimed ({corrected})."
    if against:
        return f"{said}right answers say the opposite, and nothing is claimed ({corrected})."
    way = "better" if row["value"] > 0 else "worse"
    return f"{said}planned is {way} ({corrected})."
