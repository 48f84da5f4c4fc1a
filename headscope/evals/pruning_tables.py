"""Curves of pruned heads as tables, the areas under them, and sentences about those."""

from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.evals.gates import gate, mean_interval
from headscope.evals.measured import UNITS, Measured
from headscope.evals.multiplicity import holm
from headscope.evals.statistics import (
    empirical_p,
    paired_proportions,
    sign_flip_p,
    two_way_bootstrap,
    wilson,
)
from headscope.evals.worded import with_interval

if TYPE_CHECKING:
    from headscope.evals.pruned import Pruning

LEVEL = 0.05
Measure = Literal["exact", "value"]
Curve = Float[np.ndarray, "step question"]
MEASURES: tuple[Measure, ...] = ("exact", "value")


def curves(found: "Pruning") -> pd.DataFrame:
    """See `Pruning.to_pandas`."""
    rows = [
        {
            "task": task.task, "order": order.name, "kind": order.kind, "pruned": count,
            "share": count / found.total, "questions": task.done,
            "exact": means["exact"][step], "value": means["value"][step],
        }
        for task in found.tasks
        if task.done
        for index, order in enumerate(found.orders)
        for means in [{of: _curve(found, task, index, of).mean(1) for of in MEASURES}]
        for step, count in enumerate([0, *found.counts])
    ]  # fmt: skip
    return pd.DataFrame(rows)


def table(found: "Pruning", task: int) -> pd.DataFrame:
    """See `Pruning.table`."""
    measured = _measured(found, task)
    rows = []
    for name, indices in _groups(found):
        drawn = {of: [_curve(found, measured, i, of) for i in indices] for of in MEASURES}
        for step, count in enumerate(found.counts, 1):
            row: dict[str, Any] = {"order": name, "orders": len(indices), "pruned": count}
            row["share"] = count / found.total
            for of, change in zip(MEASURES, ("exact.change", "change"), strict=True):
                now = np.stack([curve[step] for curve in drawn[of]])
                moved = now - drawn[of][0][0]
                single = name != "random"
                row |= _spread(of, now, _level(found, of, now[0]) if single else None)
                row |= _spread(change, moved, _shift(found, of, moved[0]) if single else None)
            rows.append(row)
    return pd.DataFrame(rows)


def areas(found: "Pruning", task: int) -> pd.DataFrame:
    """See `Pruning.areas`."""
    measured = _measured(found, task)
    random = dict(_groups(found)).get("random", [])
    rows = []
    for name, indices in _groups(found):
        row: dict[str, Any] = {"order": name, "orders": len(indices)}
        for of in MEASURES:
            mine, others = (
                np.stack([_area(found, measured, i, of) for i in those]) if those else None
                for those in (indices, random)
            )
            assert mine is not None
            single = name != "random"
            row |= _spread(of, mine, _height(found, of, mine[0]) if single else None)
            row |= _beyond(found, of, mine[0], others if single else None)
        rows.append(row)
    return pd.DataFrame(rows)


def differences(found: "Pruning", task: int) -> pd.DataFrame:
    """See `Pruning.differences`."""
    measured, names = _measured(found, task), found.names()
    rows: list[dict[str, Any]] = []
    for one, other in combinations(range(len(names)), 2):
        row: dict[str, Any] = {"first": names[one], "second": names[other]}
        for of in MEASURES:
            gap = _area(found, measured, one, of) - _area(found, measured, other, of)
            row |= _spread(of, gap[None], _gap(found, of, gap))
            known = bool(np.isfinite(gap).all())
            row[f"{of}.p"] = sign_flip_p(gap, found.seed) if known else np.nan
        rows.append(row)
    for of in MEASURES:
        p = np.array([row[f"{of}.p"] for row in rows])
        if len(p) and np.isfinite(p).all():
            for row, each in zip(rows, holm(p), strict=True):
                row[f"{of}.p"] = float(each)
    return pd.DataFrame(rows)


def claims(found: "Pruning") -> list[str]:
    """See `Pruning.claims`."""
    return [
        sentence
        for index, task in enumerate(found.tasks)
        if task.done
        for sentence in (*_held(found, index), *_compared(found, index))
    ]


def _held(found: "Pruning", index: int) -> list[str]:
    task, heights = found.tasks[index], areas(found, index).set_index("order")
    of, what = _said(task)
    base = _curve(found, task, 0, of)[0].mean()
    right = task.exact(0)
    held = "" if right is None else gate(right, task.chance)
    note = " Right answers of the whole model stand at the floor." if held == "floor" else ""
    said: list[str] = []
    for name in found.names():
        row: Any = heights.loc[name]
        nats = f" and {with_interval(row, 'value')} nats" if of == "exact" else ""
        against = "there are no random orders to compare it with"
        if "random" in heights.index:
            other: Any = heights.loc["random"]
            count, p = int(other["orders"]), row[f"{of}.p"]
            verdict = "more than random orders keep" if p <= LEVEL else (
                "not significantly more than random orders keep"
            )  # fmt: skip
            if 1 / (1 + count) > LEVEL:
                verdict = "too few random orders for a verdict"
            against = (
                f"{count} random orders {other[of]:.2f}, a difference of "
                f"{with_interval(row, f'{of}.beyond', '+')}: {verdict} (p = {p:.2g}, not corrected "
                "for other orders)"
            )
        said.append(
            f"On {task.done} questions of {task.task}, pruning up to {found.shares[-1]:.0%} of "
            f"the heads in the order {name!r} keeps a mean {what} of {with_interval(row, of)}"
            f"{nats}; the whole model has {base:.2f}, {against}.{note}"
        )
    return said


def _compared(found: "Pruning", index: int) -> list[str]:
    task = found.tasks[index]
    of, what = _said(task)
    said: list[str] = []
    for row in differences(found, index).to_dict("records"):
        sure = row[f"{of}.p"] <= LEVEL
        nats = ""
        if of == "exact":
            nats = (
                f"; of the {UNITS[task.metric]} {with_interval(row, 'value', '+')} nats "
                f"(p = {row['value.p']:.2g})"
            )
        said.append(
            f"On {task.done} questions of {task.task}, the mean {what} of {row['first']!r} "
            f"less that of {row['second']!r} is {with_interval(row, of, '+')}: "
            f"{'a difference' if sure else 'no difference that could be told from none'} "
            f"(p = {row[f'{of}.p']:.2g}, Holm over the pairs of orders){nats}."
        )
    return said


def _measured(found: "Pruning", task: int) -> Measured:
    if not found.tasks[task].done:
        raise HeadscopeError("This pruning has measured no question yet; run it first.")
    return found.tasks[task]


def _groups(found: "Pruning") -> list[tuple[str, list[int]]]:
    """Orders by name, random ones together and last."""
    single = [(o.name, [i]) for i, o in enumerate(found.orders) if o.kind != "random"]
    random = [i for i, order in enumerate(found.orders) if order.kind == "random"]
    return [*single, *([("random", random)] if random else [])]


def _curve(found: "Pruning", task: Measured, order: int, of: Measure) -> Curve:
    steps = len(found.counts)
    return np.stack(
        [_scores(task, c, of) for c in (0, *range(1 + order * steps, 1 + (order + 1) * steps))]
    )


def _area(
    found: "Pruning", task: Measured, order: int, of: Measure
) -> Float[np.ndarray, " question"]:
    shares = found.shares
    return np.trapezoid(_curve(found, task, order, of), shares, axis=0) / shares[-1]


def _interval(found: "Pruning", values: Float[np.ndarray, " question"]) -> tuple[float, float]:
    return mean_interval(values, found.seed) if np.isfinite(values).all() else (np.nan, np.nan)


def _height(
    found: "Pruning", of: Measure, areas: Float[np.ndarray, " question"]
) -> tuple[float, float]:
    """Interval of an area; where all questions agree, that of a share of right answers."""
    low, high = _interval(found, areas)
    if of == "value" or np.isnan(low):
        return low, high
    if low == high:
        low, high = wilson(round(areas.sum()), len(areas))
    return max(0.0, low), min(1.0, high)


def _gap(
    found: "Pruning", of: Measure, gaps: Float[np.ndarray, " question"]
) -> tuple[float, float]:
    """Interval of a difference of areas; where all questions agree, that of shares."""
    low, high = _interval(found, gaps)
    if of == "value" or np.isnan(low):
        return low, high
    if low == high:
        low, high = (low + edge for edge in paired_proportions(np.zeros(len(gaps))))
    return max(-1.0, low), min(1.0, high)


def _level(
    found: "Pruning", of: Measure, values: Float[np.ndarray, " question"]
) -> tuple[float, float]:
    if of == "exact" and np.isfinite(values).all():
        return wilson(int(values.sum()), len(values))
    return _interval(found, values)


def _shift(
    found: "Pruning", of: Measure, change: Float[np.ndarray, " question"]
) -> tuple[float, float]:
    if of == "exact" and np.isfinite(change).all():
        return paired_proportions(change)
    return _interval(found, change)


def _beyond(
    found: "Pruning",
    of: Measure,
    mine: Float[np.ndarray, " question"],
    others: Float[np.ndarray, "order question"] | None,
) -> dict[str, float]:
    names = (f"{of}.beyond", f"{of}.beyond.low", f"{of}.beyond.high", f"{of}.p")
    if others is None or not np.isfinite(mine).all():
        return dict.fromkeys(names, np.nan)
    low = high = np.nan
    if len(others) > 1 and not np.isnan(_interval(found, mine)[0]):
        low, high = two_way_bootstrap(mine, others, found.seed)
    p = empirical_p(float(mine.mean()), others.mean(1))
    gap = float(mine.mean() - others.mean())
    return dict(zip(names, (gap, low, high, p), strict=True))


def _scores(task: Measured, condition: int, of: Measure) -> Float[np.ndarray, " question"]:
    right = task.exact(condition)
    if of == "value":
        return task.values(condition)[: task.done]
    return np.full(task.done, np.nan) if right is None else right[: task.done].astype(float)


def _said(task: Measured) -> tuple[Measure, str]:
    """What a claim rests on: right answers where there are any."""
    return ("value", UNITS[task.metric]) if task.metric == "tokens" else (
        "exact", "share of right answers"
    )  # fmt: skip


def _spread(
    name: str, sets: Float[np.ndarray, "set question"], interval: tuple[float, float] | None
) -> dict[str, float]:
    """A mean with an interval, or with the range that holds 90 % of the sets."""
    means = sets.mean(1)
    low, high = np.quantile(means, [0.05, 0.95]) if interval is None else interval
    return {name: float(means.mean()), f"{name}.low": float(low), f"{name}.high": float(high)}
