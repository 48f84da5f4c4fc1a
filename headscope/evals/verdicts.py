"""What the numbers of a validation say, and no more."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.evals.conditions import CONTROLS
from headscope.evals.gates import gate, mean_interval
from headscope.evals.measured import UNITS, Measured
from headscope.evals.multiplicity import holm
from headscope.evals.statistics import Interval, empirical_p, wilson
from headscope.evals.two_way import two_way_bootstrap
from headscope.heads import label

if TYPE_CHECKING:
    from headscope.evals.validation import Validation

LEVEL = 0.05
SPARED = (
    0.1  # nats per answer token; declared beforehand: a change within it leaves an eval as it was
)
_WHERE = {"all": "at all positions", "prefill": "on the prompt", "decode": "on answer tokens"}


def table(found: "Validation", task: int) -> pd.DataFrame:
    """See `Validation.table`."""
    measured = found.tasks[task]
    if not measured.done:
        raise HeadscopeError(f"No question of {measured.task} has been measured yet; run it first.")
    rows = []
    for kind in ("base", "tested", *CONTROLS):
        sets = found.sets(kind, task=task)
        if not sets:
            continue
        values = np.array([measured.values(i) for i in sets])
        change = (values - measured.values(0)).mean(0)
        low, high = mean_interval(change, found.seed)
        rows.append(
            {"condition": kind, "sets": len(sets)}
            | _exact([measured.exact(i) for i in sets])
            | {"value": float(values.mean()), "change": float(change.mean())}
            | {"change.low": low, "change.high": high}
        )
    return pd.DataFrame(rows)


def _exact(right: list[np.ndarray | None]) -> dict[str, float]:
    known = [each for each in right if each is not None]
    if not known:
        return dict.fromkeys(("exact", "exact.low", "exact.high"), np.nan)
    means = np.array([each.mean() for each in known])
    low, high = float(means.min()), float(means.max())
    if len(known) == 1:
        low, high = wilson(int(known[0].sum()), len(known[0]))
    return {"exact": float(means.mean()), "exact.low": low, "exact.high": high}


def p_values(found: "Validation", task: int, k: int | None) -> dict[str, float]:
    """See `Validation.p_values`."""
    measured, p = found.tasks[task], dict[str, float]()
    sign = -1 if found.direction == "drop" else 1
    tested = found.sets("tested", k, task)
    for kind in CONTROLS:
        sets = found.sets(kind, k, task)
        for name, of in (("value", measured.values), ("exact", measured.exact)):
            means = [sign * each.mean() for i in (*tested, *sets) if (each := of(i)) is not None]
            if tested and len(means) > 1:
                p[f"{kind}.{name}"] = empirical_p(float(means[0]), np.array(means[1:]))
    return p


def doses(found: "Validation", task: int) -> pd.DataFrame:
    """See `Validation.doses`."""
    measured, rows = found.tasks[task], []
    tested = {c.k: i for i, c in enumerate(found.conditions) if c.kind == "tested"}
    for k, index in sorted(tested.items()):
        if index >= len(measured.scores) or not measured.done:
            continue
        change, right = _change(measured, index), measured.exact(index)
        low, high = mean_interval(change, found.seed)
        row: dict[str, Any] = {"k": k, "confirmatory": k == found.k}
        row["exact"] = np.nan if right is None else float(right.mean())
        row |= {"change": float(change.mean()), "change.low": low, "change.high": high}
        p = p_values(found, task, k)
        for kind in CONTROLS:
            effects = np.array([_change(measured, i).mean() for i in found.sets(kind, k, task)])
            span = np.quantile(effects, [0.05, 0.95]) if len(effects) else (np.nan, np.nan)
            row[f"{kind}.sets"] = len(effects)
            row[f"{kind}.change"] = effects.mean() if len(effects) else np.nan
            row[f"{kind}.5%"], row[f"{kind}.95%"] = map(float, span)
            row[f"{kind}.p"] = p.get(f"{kind}.value", np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def specificity(found: "Validation") -> pd.DataFrame:
    """See `Validation.specificity`."""
    measured = [index for index, task in enumerate(found.tasks) if task.done]
    if not measured:
        raise HeadscopeError("This validation has measured no question yet; run it first.")
    rows = [_specific(found, index) for index in measured]
    tested = [row for row in rows if row["expected"] == "changes"]
    p = np.array([row["p"] for row in tested])
    if np.isfinite(p).all():
        for row, each in zip(tested, holm(p), strict=True):
            row["p"] = float(each)
    for row in rows:
        row["verdict"] = _verdict(row)
    return pd.DataFrame(rows)


def _specific(found: "Validation", task: int) -> dict[str, Any]:
    measured = found.tasks[task]
    tested = measured.per_token(1) - measured.per_token(0)
    low, high = mean_interval(tested, found.seed)
    sets = [i for kind in CONTROLS for i in found.sets(kind, task=task)]
    controls = np.array([measured.per_token(i) - measured.per_token(0) for i in sets])
    before, after = (measured.exact(i) for i in (0, 1))
    row: dict[str, Any] = {
        "task": measured.task,
        "expected": "changes" if task < found.targets else "spared",
        "questions": measured.done,
        "exact.base": np.nan if before is None else float(before.mean()),
        "exact": np.nan if after is None else float(after.mean()),
        "change": float(tested.mean()),
        "change.low": low,
        "change.high": high,
        "controls": np.nan,
        "beyond": np.nan,
        "z": np.nan,
        "p": _worst(found, task),
    }
    row["beyond.low"] = row["beyond.high"] = np.nan
    if len(sets):
        row["beyond.low"], row["beyond.high"] = _beyond(tested, controls, found.seed)
        means = controls.mean(1)
        spread = float(means.std(ddof=1)) if len(sets) > 1 else 0.0
        row["controls"] = float(means.mean())
        row["beyond"] = row["change"] - row["controls"]
        row["z"] = row["beyond"] / spread if spread else np.nan
    return row


def _beyond(
    tested: Float[np.ndarray, " question"], controls: Float[np.ndarray, "set question"], seed: int
) -> Interval:
    if len(controls) < 2 or np.isnan(mean_interval(tested, seed)[0]):
        return float("nan"), float("nan")
    return two_way_bootstrap(tested, controls, seed)


def _worst(found: "Validation", task: int) -> float:
    """The largest p over the kinds of control that have sets enough for any verdict."""
    p = p_values(found, task, None)
    enough = [f"{kind}.value" for kind in _enough(found, task)]
    return max((p[name] for name in enough), default=np.nan)


def _enough(found: "Validation", task: int) -> list[str]:
    return [k for k in CONTROLS if 1 / (1 + len(found.sets(k, task=task))) <= LEVEL]


def _verdict(row: dict[str, Any]) -> str:
    if row["expected"] == "changes":
        if np.isnan(row["p"]):
            return "too few control sets"
        return "more than random heads" if row["p"] <= LEVEL else "not more than random heads"
    if np.isnan(row["change.low"]):
        return "too few questions"
    if row["change.low"] >= -SPARED and row["change.high"] <= SPARED:
        return "spared"
    moved = row["change.high"] < -SPARED or row["change.low"] > SPARED
    return "not spared" if moved else "undecided"


def claims(found: "Validation") -> list[str]:
    """See `Validation.claims`."""
    rows = specificity(found).to_dict("records")
    tasks = [index for index, task in enumerate(found.tasks) if task.done]
    return [
        _needed(found, task, row) if task < found.targets else _spared(found, row)
        for task, row in zip(tasks, rows, strict=True)
    ]


def _what(found: "Validation") -> str:
    names = ", ".join(label(head) for head in found.tested)
    where = _WHERE.get(found.part, "where the answer is made")
    return f"{found.mode.capitalize()} ablation of {names} {where}"


def _needed(found: "Validation", task: int, row: dict[str, Any]) -> str:
    measured = found.tasks[task]
    rows = found.table(task).set_index("condition")
    tested, base = rows.loc["tested"], rows.loc["base"]
    controls = [kind for kind in CONTROLS if kind in rows.index]
    said, right = "", measured.exact(0)
    if right is not None:
        others = " and ".join(
            f"{rows.loc[kind, 'exact']:.2f} with {int(rows.loc[kind, 'sets'])} "
            f"{kind.replace('_', '-')} random sets"
            for kind in controls
        )
        others = f" ({others})" if controls else ""
        said = f"right answers from {base['exact']:.2f} to {tested['exact']:.2f}{others} and "
    return (
        f"{_what(found)} changes, on {measured.done} questions of {measured.task}, {said}the "
        f"{UNITS[measured.metric]} by {tested['change']:.2f} nats"
        f"{_span(tested['change.low'], tested['change.high'], '.2f')}: {_reason(found, task, row)}."
        f"{_gated(found, measured)}"
    )


def _reason(found: "Validation", task: int, row: dict[str, Any]) -> str:
    sets = {kind: len(found.sets(kind, task=task)) for kind in CONTROLS}
    asked = {kind: count for kind, count in sets.items() if count or not sum(sets.values())}
    few = " and ".join(
        f"{count} {kind.replace('_', '-')} control sets"
        for kind, count in asked.items()
        if kind not in _enough(found, task)
    )
    if np.isnan(row["p"]):
        return f"{few} are too few to say whether random heads would do the same"
    more = "more" if row["p"] <= LEVEL else "not significantly more"
    corrected = ", Holm over the evals" if found.targets > 1 else ""
    missing = f"; {few} are too few to add to that" if few else ""
    return f"{more} than random heads (p = {row['p']:.3f}{corrected}){missing}"


def _gated(found: "Validation", measured: Measured) -> str:
    right = measured.exact(0)
    held = "" if right is None else gate(right, measured.chance)
    stuck = "floor" if found.direction == "drop" else "ceiling"
    if held != stuck:
        return ""
    return (
        f" Right answers stand at the {held}, so that the claim rests on log-probabilities alone."
    )


def _spared(found: "Validation", row: dict[str, Any]) -> str:
    verdict = {
        "spared": f"it is spared (within ±{SPARED} nats per token)",
        "not spared": "it is not spared",
        "undecided": f"whether it is spared (within ±{SPARED} nats per token) is undecided",
    }.get(row["verdict"], "too few questions to say whether it is spared")
    right = ""
    if not np.isnan(row["exact"]):
        right = f"right answers from {row['exact.base']:.2f} to {row['exact']:.2f} and "
    return (
        f"{_what(found)} changes, on {row['questions']} questions of {row['task']}, {right}the "
        f"log-probability of an answer token by {row['change']:+.3f} nats"
        f"{_span(row['change.low'], row['change.high'], '+.3f')}: {verdict}."
    )


def _span(low: float, high: float, form: str) -> str:
    """An interval in brackets; nothing of one that too few questions allow."""
    return "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"


def _change(measured: Measured, index: int) -> Float[np.ndarray, " question"]:
    return measured.values(index) - measured.values(0)
