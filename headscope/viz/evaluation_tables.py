"""Evaluations as tables: headers, and rows as they are read."""

from collections.abc import Mapping
from math import isnan
from typing import Any

import pandas as pd

from headscope.evals.evaluation import Evaluation
from headscope.evals.measured import UNITS
from headscope.viz.causal_tables import NONE, Table, nats

_GATES = "floor, ceiling: right answers have no room there; go by the log-probability."


def said(evaluation: Evaluation) -> list[str]:
    """A sentence for each eval and change; what was not measured; how the tables are read."""
    known = _measured(evaluation)
    if known is None:
        return ["No question has been measured yet."]
    sentences = known.claims()
    for task in evaluation.tasks:
        if task.done < len(task.digests):
            missing = f"{task.done} of {len(task.digests)} questions"
            sentences.append(f"Of {task.task} only {missing} have been measured yet.")
    units = {task.metric: UNITS[task.metric] for task in known.tasks}
    sentences.append(f"nats: {'; '.join(f'{name}, the {of}' for name, of in units.items())}.")
    if any(known.table()["gate"]):
        sentences.append(_GATES)
    return sentences


def results(evaluation: Evaluation) -> list[Table]:
    """All questions of each eval; then by length, where an eval has several."""
    known = _measured(evaluation)
    if known is None:
        return []
    tables = [_table(known, known.table(), None)]
    if any(len({facts.get("length") for facts in task.facts}) > 1 for task in known.tasks):
        tables.append(_table(known, known.by("length"), "length"))
    return tables


def _measured(evaluation: Evaluation) -> Evaluation | None:
    """Without the evals of which nothing is known yet."""
    tasks = [task for task in evaluation.tasks if task.done]
    return evaluation.model_copy(update={"tasks": tasks}) if tasks else None


def _table(evaluation: Evaluation, table: pd.DataFrame, fact: str | None) -> Table:
    several = len(evaluation.conditions) > 1
    by = [] if fact is None else [fact]
    header = ["eval", *by, "condition", "questions", "right answers [95 %]", "metric"]
    header += ["nats [95 %]"]
    header += ["change [95 %]"] if several else []
    rows = []
    for row in table.to_dict("records"):
        n = 3 if row["metric"] == "tokens" else 2
        cells = [row["task"], *([] if fact is None else [str(row[fact])]), row["condition"]]
        cells += [str(row["questions"]), _right(row), row["metric"]]
        cells.append(_interval(row, "value", n))
        cells += [_interval(row, "change", n)] if several else []
        rows.append(cells)
    return header, rows


def _right(row: Mapping[str, Any]) -> str:
    if isnan(row["exact"]):
        return NONE
    held = f" {row['gate']}" if row["gate"] else ""
    guess = f", guess {row['chance']:.2f}" if row["chance"] > 0 else ""
    between = f"[{row['exact.low']:.2f}, {row['exact.high']:.2f}]"
    return f"{row['exact']:.2f} {between}{guess}{held}"


def _interval(row: Mapping[str, Any], name: str, n: int) -> str:
    """Nothing for the change of the first condition, and no brackets of too few questions."""
    if isnan(row[name]):
        return ""
    value, low, high = (row[key] for key in (name, f"{name}.low", f"{name}.high"))
    return nats(value, n) if isnan(low) else f"{nats(value, n)} [{nats(low, n)}, {nats(high, n)}]"
