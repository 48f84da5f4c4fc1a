"""Evals, evaluations and validations as text."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headscope.evals.conditions import CONTROLS
from headscope.evals.evaluation import Evaluation
from headscope.evals.measured import UNITS
from headscope.evals.validation import Validation
from headscope.evals.worded import with_interval
from headscope.printed import blank_table


def evals(rows: Sequence[Mapping[str, str]]) -> RenderableType:
    """What each eval asks, how it is scored, and where its idea comes from."""
    table = blank_table("eval", "scored by; tokens", "what it asks, source, licence of the idea")
    for row in rows:
        table.add_row(
            Text(row["eval"], "bold"),
            Text(f"{row['metric']}\n{row['lengths']}"),
            Text.assemble(row["asks"], (f"\n{row['source']}\nlicence: {row['licence']}", "dim")),
            end_section=True,
        )
    return table


def evaluation(result: Evaluation, by: str | None) -> RenderableType:
    """All questions of each eval, then by a fact of them, then one sentence for each change."""
    several = len(result.conditions) > 1
    parts: list[RenderableType] = [Text(result.model), _results(result.table(), None, several)]
    known = {name for task in result.tasks for facts in task.facts for name in facts}
    shown = [by] if by is not None else [name for name in ("length", "depth") if name in known]
    for fact in shown:
        found = result.by(fact)
        seen = {(row["task"], row[fact]) for row in found.to_dict("records")}
        if by is not None or len(seen) > len({task for task, _ in seen}):
            parts.append(_results(found, fact, several))
    curves = result.curves()
    if len(curves):
        parts.append(_curves(curves))
    notes = []
    if any(result.table()["gate"]):
        notes.append("floor, ceiling: right answers have no room there; go by the log-probability.")
    return Group(*parts, *(Text(note) for note in notes), *map(Text, result.claims()))


def _results(rows: pd.DataFrame, fact: str | None, several: bool) -> Table:
    by = [] if fact is None else [f">{fact}"]
    change = [">change [95 %]"] if several else []
    table = blank_table("eval", *by, "condition", ">n", ">right [95 %]", ">nats [95 %]", *change)
    last = None
    for row in rows.to_dict("records"):
        name = row["task"] if row["task"] != last else ""
        last = row["task"]
        cells = [Text(name, "bold")]
        if fact is not None:
            cells.append(Text(str(row[fact])))
        cells += [Text(row["condition"]), Text(str(row["questions"])), Text(_right(row))]
        cells.append(Text(with_interval(row, "value")))
        if several:
            told = "change" in row and not pd.isna(row["change"])
            cells.append(Text(with_interval(row, "change", "+") if told else ""))
        table.add_row(*cells)
    return table


def _right(row: Mapping[str, Any]) -> str:
    if pd.isna(row["exact"]):
        return "–"
    held = f" {row['gate']}" if row.get("gate") else ""
    guess = f", guess {row['chance']:.2f}" if row.get("chance", 0) > 0 else ""
    return f"{row['exact']:.2f} [{row['exact.low']:.2f}, {row['exact.high']:.2f}]{guess}{held}"


def _curves(curves: pd.DataFrame) -> Table:
    """Mean nats of a token from the first to the last part of the text."""
    lines = defaultdict[tuple[str, str], list[str]](list)
    for row in curves.to_dict("records"):
        lines[row["task"], row["condition"]].append(f"{row['value']:.2f}")
    parts = max(map(len, lines.values()))
    table = blank_table("eval", "condition", *(f">part {i + 1}" for i in range(parts)))
    for names, values in lines.items():
        table.add_row(*map(Text, names), *values)
    return table


def validation(result: Validation) -> RenderableType:
    """Each eval's conditions; doses and specificity where there are several; the sentences."""
    title = f"{result.model}: {result.mode} ablation, rows: {result.part}"
    parts: list[RenderableType] = [Text(title)]
    for index, task in enumerate(result.tasks):
        table = blank_table(
            f"{task.task}, {task.done} questions", ">sets", ">right", ">nats", ">change [95 %]"
        )
        for row in result.table(index).to_dict("records"):
            table.add_row(
                row["condition"].replace("_", "-"),
                str(row["sets"]),
                _right(row),
                f"{row['value']:.2f}",
                with_interval(row, "change", "+"),
            )
        parts.append(table)
        doses = result.doses(index)
        if len(doses) > 1:
            parts.append(_doses(doses))
    if len(result.tasks) > 1:
        parts.append(_specificity(result.specificity()))
    units = sorted({UNITS[task.metric] for task in result.tasks})
    parts.append(Text(f"nats: {'; '.join(units)}. Brackets behind sets are their range."))
    return Group(*parts, *map(Text, result.claims()))


def _doses(rows: pd.DataFrame) -> Table:
    kinds = [k for k in CONTROLS if any(rows[f"{k}.sets"])]
    named = [f">{kind.replace('_', '-')}: change, p" for kind in kinds]
    table = blank_table(">heads", ">right", ">change [95 %]", *named)
    for row in rows.to_dict("records"):
        right = "–" if pd.isna(row["exact"]) else f"{row['exact']:.2f}"
        table.add_row(
            Text(str(row["k"]), "bold" if row["confirmatory"] else ""),
            right,
            with_interval(row, "change", "+"),
            *(_control(row, kind) for kind in kinds),
        )
    table.caption = "Bold: the number named beforehand; the others explore."
    return table


def _control(row: Mapping[str, Any], kind: str) -> str:
    if not row[f"{kind}.sets"]:
        return "–"
    span = f"[{row[f'{kind}.5%']:+.2f}, {row[f'{kind}.95%']:+.2f}]"
    return f"{row[f'{kind}.change']:+.2f} {span}, {row[f'{kind}.p']:.3f}"


def _specificity(rows: pd.DataFrame) -> Table:
    table = blank_table(
        "nats per token", "expected", ">change [95 %]", ">beyond controls", ">p", ""
    )
    for row in rows.to_dict("records"):
        p = "–" if pd.isna(row["p"]) else f"{row['p']:.3f}"
        beyond = "–" if pd.isna(row["beyond"]) else with_interval(row, "beyond", "+")
        table.add_row(
            row["task"],
            row["expected"],
            with_interval(row, "change", "+"),
            beyond,
            p,
            row["verdict"],
        )
    return table
