"""Tables and progress for people at a terminal: results to stdout, progress to stderr."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from headscope.compare import Comparison
from headscope.headmap import HeadMap
from headscope.printed import TIES, roles

if TYPE_CHECKING:  # they import torch, which takes longer than most commands that only read
    from headscope.evals.evaluation import Evaluation
    from headscope.evals.validation import Validation

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
    """A line for stdout, as it is: paths are copied from it."""
    out.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def bars(quiet: bool, told: Literal["bars", "json"] = "bars") -> Iterator["Bars | Lines"]:
    """Progress bars, one per thing that is being worked on; or lines, for programs."""
    if told == "json" and not quiet:
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=err, disable=quiet)
    try:
        yield Bars(progress)
    finally:
        if progress.tasks:  # one that never began would end with an empty line
            progress.stop()


class Bars:
    """Feeds the `progress` callbacks of `scan` and `validate`."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tasks = progress, {}

    def family(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._progress.start()
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)


class Lines:
    """Takes the same calls, and writes {"stage": name, "done": 3, "total": 8} for each."""

    def family(self, name: str, done: int, total: int) -> None:
        err.file.write(json.dumps({"stage": name, "done": done, "total": total}) + "\n")
        err.file.flush()


def show_top(head_map: HeadMap, k: int) -> None:
    """Every role that was measured: how many heads have it, how surely, and the first of them."""
    out.print(roles(head_map, k))


def show_validation(validation: "Validation") -> None:
    """The tables of a causal test, and its sentences."""
    from headscope import printed_evals

    out.print(printed_evals.validation(validation))


def show_evaluation(evaluation: "Evaluation", by: str | None) -> None:
    """The tables of an evaluation, and one sentence for each change."""
    from headscope import printed_evals

    out.print(printed_evals.evaluation(evaluation, by))


def show_comparison(comparison: Comparison, first: object, second: object) -> None:
    """Rank correlation and overlap per score of two runs."""
    table = comparison.table
    show_frame(table, f"{first} ({comparison.first}) against {second} ({comparison.second})")
    if any(note.startswith("ties") for note in table["note"]):
        say(TIES.format(k=table["k"].max()))


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if value != value else f"{value:.3f}"


def show_frame(frame: pd.DataFrame, title: str, columns: Sequence[str] | None = None) -> None:
    """A table as it is."""
    table = Table(title=title, title_justify="left")
    names = list(columns or frame.columns)
    for name in names:
        table.add_column(name, justify="right" if frame[name].dtype.kind in "if" else "left")
    for row in frame[names].itertuples(index=False):
        table.add_row(*map(_cell, row))
    out.print(table)
