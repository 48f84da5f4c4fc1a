"""The process that reads evals, validations and other results: their classes need torch."""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.heads import parse_head
from headscope_app.answering import answer, dies_first, limit_memory
from headscope_app.kept_files import KeptFiles
from headscope_app.result_charts import charts

_KEPT = 32
_READERS = {
    "validation": "headscope.evals.validation.Validation",
    "evaluation": "headscope.evals.evaluation.Evaluation",
    "effects": "headscope.evals.effects.Effects",
    "patch_map": "headscope.patch_map.PatchMap",
    "pareto": "headscope.sparsity.frontier.Pareto",
    "pruning": "headscope.evals.pruned.Pruning",
    "sparse_plan": "headscope.sparsity.planned.Plan",
    "sparse_profile": "headscope.sparsity.profile.SparseProfile",
    "bench": "headscope.bench.result.Bench",
}


class Results:
    """Answers requests of `headscope_app.results`; files are read once while they stay."""

    def __init__(self) -> None:
        self._files = KeptFiles(_KEPT)

    def handle(self, request: dict[str, Any]) -> tuple[Any, Sequence[np.ndarray]]:
        match request["do"]:
            case "show":
                found = self._read(request["kind"], request["path"])
                return _shown(request["kind"], found, request["theme"]), []
            case "head":
                return self._of_head(request), []
        raise HeadscopeError(f"Nothing here does {request['do']!r}.")

    def _read(self, kind: str, path: str) -> Any:
        if kind not in _READERS:
            raise HeadscopeError(f"Results of the kind {kind!r} are not shown here.")
        return self._files.read(path, lambda file: _loaded(kind, file), "go back to the list")

    def _of_head(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """What results of the same weights say about a head; files that cannot be read do not."""
        head, rows = parse_head(request["head"]), []
        for given in request["files"]:
            try:
                found = self._read(given["kind"], given["path"])
            except HeadscopeError:
                continue
            if found.fingerprint == request["fingerprint"]:
                rows += [row | {"id": given["id"]} for row in _about(given["kind"], found, head)]
        return rows


def _loaded(kind: str, path: Path) -> Any:
    module, name = _READERS[kind].rsplit(".", 1)
    return getattr(importlib.import_module(module), name).load(path)


def _about(kind: str, found: Any, head: tuple[int, int]) -> list[dict[str, Any]]:
    """Rows: what was done, to which eval, alone or with how many, the change and its interval."""
    if kind == "effects" and head in [tuple(each) for each in found.heads] and found.measured.done:
        table = found.table()
        row = table[(table["layer"] == head[0]) & (table["head"] == head[1])].iloc[0]
        done = f"{found.mode} ablation alone, rows: {found.part}"
        return [_row(done, found.measured.task, row, "change", f"q = {row['q']:.2g}")]
    if kind == "patch_map" and head in found.heads and found.done:
        row = found.table().iloc[found.heads.index(head)]
        bounds = {"change": row["effect"], "change.low": row["low"], "change.high": row["high"]}
        return [_row("patched alone", found.task, bounds, "change", f"q = {row['q']:.2g}", "share")]
    if kind == "validation":
        return _validated(found, head)
    return []


def _validated(found: Any, head: tuple[int, int]) -> list[dict[str, Any]]:
    """Doses that hold the head."""
    rows = []
    for number, task in enumerate(found.tasks):
        if not task.done:
            continue
        for row in found.doses(number).to_dict("records"):
            tested = found.sets("tested", int(row["k"]), number)
            if not tested or head not in map(tuple, found.conditions[tested[0]].heads):
                continue
            company = "alone" if row["k"] == 1 else f"as one of {row['k']:.0f} heads"
            done = f"{found.mode} ablation {company}, rows: {found.part}"
            means = [row[f"{kind}.change"] for kind in ("uniform", "layer_matched")]
            known = [mean for mean in means if not math.isnan(mean)]
            said = f"random sets {np.mean(known):+.2f}" if known else ""
            rows.append(_row(done, task.task, row, "change", said))
    return rows


def _row(
    done: str, task: str, row: Any, name: str, said: str, unit: str = "nats"
) -> dict[str, Any]:
    ends = {end or ".mean": float(row[f"{name}{end}"]) for end in ("", ".low", ".high")}
    return {
        "done": done, "task": task, "said": said, "unit": unit,
        "change": _plain(ends[".mean"]), "low": _plain(ends[".low"]), "high": _plain(ends[".high"]),
    }  # fmt: skip


def _shown(kind: str, found: Any, theme: Literal["light", "dark"]) -> dict[str, Any]:
    """Claims, tables and charts of a result."""
    tables = {"validation": _of_validation, "evaluation": _of_evaluation, "pareto": _of_tasks,
              "pruning": _of_tasks}.get(kind, _of_one)(found)  # fmt: skip
    return {
        "model": _model(found),
        "command": getattr(found, "command", ""),
        "claims": _claims(found),
        "tables": [
            {"title": title, "rows": _records(table)} for title, table in tables if len(table)
        ],
        "charts": charts(kind, found, theme),
    }


def _model(found: Any) -> str:
    """The name of the model, which results keep in different places."""
    model = getattr(found, "model", None) or getattr(
        getattr(found, "evaluation", None), "model", ""
    )
    return model if isinstance(model, str) else getattr(model, "name", "")


def _claims(found: Any) -> list[str]:
    """What a result says of itself."""
    for name in ("claims", "sentences"):
        if hasattr(found, name):
            return list(getattr(found, name)())
    return [found.claim()] if hasattr(found, "claim") else []


def _of_validation(found: Any) -> list[tuple[str, pd.DataFrame]]:
    tables = [("Every eval: what changes and what is spared", found.specificity())]
    for number, task in enumerate(found.tasks):
        if task.done:
            tables.append((f"{task.task}: the ablation beside random sets", found.table(number)))
            tables.append((f"{task.task}: by how many heads", found.doses(number)))
    return tables


def _of_evaluation(found: Any) -> list[tuple[str, pd.DataFrame]]:
    tables = [("All questions", found.table())]
    facts = {name for task in found.tasks for facts in task.facts for name in facts}
    return tables + [
        (f"By {fact}", found.by(fact)) for fact in ("length", "depth") if fact in facts
    ]


def _of_tasks(found: Any) -> list[tuple[str, pd.DataFrame]]:
    tasks = getattr(found, "evaluation", found).tasks
    return [(task.task, found.table(number)) for number, task in enumerate(tasks)]


def _of_one(found: Any) -> list[tuple[str, pd.DataFrame]]:
    table = getattr(found, "table", None)
    return [] if table is None else [("Every head", table())]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    kept = table.dropna(axis=1, how="all")
    return [
        {str(name): _plain(value) for name, value in row.items()} for row in kept.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """As JSON has it: no NaN, and nothing of numpy."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


if __name__ == "__main__":
    dies_first()
    limit_memory()
    answer(Results().handle, "The process that reads results ran out of memory.")
