"""Tables and progress for people at a terminal: results to stdout, progress to stderr."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.roles import RULES

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
    """A line for stdout, as it is: paths are copied from it."""
    out.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def bars(quiet: bool) -> Iterator["Bars"]:
    """Progress bars, one per thing that is being worked on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=quiet) as progress:
        yield Bars(progress)


class Bars:
    """Feeds the `progress` callbacks of `scan` and `validate`."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tasks = progress, {}

    def family(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)

    def prompts(self, done: int, total: int) -> None:
        self.family("prompts", done, total)


def show_top(head_map: HeadMap, k: int) -> None:
    """The best heads of every role, side by side with their scores."""
    title = f"{head_map.info.model.name}: {len(head_map.layers)} layers × {head_map.n_heads} heads"
    table = Table(title=title, title_justify="left")
    table.add_column("role and its rule", no_wrap=True)
    for column in ("heads", "% of all", "best", "score", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for role, rule in RULES.items():
        if rule.score not in head_map.scores:
            continue
        seed = head_map.info.seed
        share = [100 * x for x in head_map[rule.score].share_above(rule.threshold, seed)]
        count = round(share[0] / 100 * len(head_map.heads()))
        best = head_map.top(rule.score, k).to_dict("records")
        lines = (
            [row["name"] for row in best],
            [f"{row[rule.score]:.2f}" for row in best],
            [f"{row[f'{rule.score}.low']:.2f}–{row[f'{rule.score}.high']:.2f}" for row in best],
        )
        cells = ("\n".join(column) for column in lines)
        shares = f"{share[0]:.1f} [{share[1]:.1f}–{share[2]:.1f}]"
        table.add_row(f"{role} > {rule.threshold}", str(count), shares, *cells, end_section=True)
    out.print(table)


def show_head(head_map: HeadMap, name: str, layer: int, head: int) -> None:
    """Every score of one head, its interval and its rank among all."""
    table = head_map.to_pandas()
    row = table[(table["layer"] == layer) & (table["head"] == head)].iloc[0]
    role = head_map.roles().set_index(["layer", "head"]).loc[(layer, head)]
    shown = Table(
        title=f"{name} of {head_map.info.model.name} (kv_head {int(row['kv_head'])}): "
        f"{role['roles'].replace(',', ', ') or 'no role'}",
        title_justify="left",
    )
    for column in ("score", "mean", "95 % interval", "rank", "rule"):
        shown.add_column(column, justify="left" if column in ("score", "rule") else "right")
    rules = {rule.score: f"{name} if above {rule.threshold}" for name, rule in RULES.items()}
    for score in head_map.scores:
        rank = int((table[score] > row[score]).sum()) + 1
        interval = f"{row[f'{score}.low']:.3f} – {row[f'{score}.high']:.3f}"
        cells = (score, f"{row[score]:.3f}", interval, f"{rank} of {len(table)}")
        shown.add_row(*cells, rules.get(score, ""))
    out.print(shown)


def show_validation(validation: Validation) -> None:
    """The table of a causal test, and its one sentence."""
    table = Table(
        title=f"{validation.model}: {validation.mode} ablation, rows: {validation.part}, "
        f"{validation.done} prompts",
        title_justify="left",
    )
    for column in ("heads", "sets", "exact match", "log p", "change [95 %]"):
        table.add_column(column, justify="left" if column == "heads" else "right")
    for row in validation.table().to_dict("records"):
        table.add_row(
            row["condition"].replace("_", "-"),
            str(row["sets"]),
            f"{row['exact']:.2f} [{row['exact.low']:.2f}–{row['exact.high']:.2f}]",
            f"{row['logp']:.2f}",
            f"{row['logp_change']:+.2f} [{row['logp_change.low']:+.2f}, "
            f"{row['logp_change.high']:+.2f}]",
        )
    out.print(table)
    say(validation.claim())


def show_comparison(comparison: Comparison) -> None:
    """Rank correlation and overlap per score."""
    show_frame(comparison.table, f"{comparison.first} against {comparison.second}")


def show_frame(frame: pd.DataFrame, title: str, columns: Sequence[str] | None = None) -> None:
    """A table as it is."""
    table = Table(title=title, title_justify="left")
    names = list(columns or frame.columns)
    for name in names:
        table.add_column(name, justify="right" if frame[name].dtype.kind in "if" else "left")
    for row in frame[names].itertuples(index=False):
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    out.print(table)
