"""Reading a run folder: whole and sound, or one sentence that says what is wrong with it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.runinfo import RunInfo

Arrays = dict[str, np.ndarray]


def read_run(folder: Path) -> tuple[RunInfo, Arrays, Arrays, pd.DataFrame]:
    """A finished run: what it was made from, its scores, its curves and its table of heads.

    Raises:
        HeadscopeError: it is missing, damaged, unfinished, or from a newer headscope.
    """
    info = RunInfo.read(folder)
    if info.state != "complete":
        again = (
            f"run its command again to continue it: {info.command}"
            if info.command
            else "it was begun in Python: continue it there, with the same headscope.scan(model, "
            f"..., out={str(folder)!r})"
        )
        raise HeadscopeError(f"The scan in {folder} is not finished; {again}.")

    def read(reader: Callable[[Path], Any], name: str) -> Any:
        path = folder / name
        try:
            return reader(path)
        except HeadscopeError as error:
            what = "cannot be read" if path.exists() else "is not there and cannot be read"
            raise _damaged(folder, info, f"its {name} {what}") from error

    scores = read(storage.read_arrays, "scores.safetensors")
    curves = read(storage.read_arrays, "curves.safetensors") if info.curves else {}
    n = len(info.model.layers) * info.model.n_heads
    fits = read(storage.rows_in, "heads.parquet") == n
    table = read(storage.read_table, "heads.parquet") if fits else pd.DataFrame()
    for problem in _problems(info, scores, curves):
        raise _damaged(folder, info, problem)
    if not {"layer", "head", *scores} <= {*table.columns}:
        raise _damaged(folder, info, "its heads.parquet does not fit its scores")
    return info, scores, curves, table


def _problems(
    info: RunInfo, scores: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """What is wrong with arrays, beside the run.json that describes them."""
    shape = (len(info.model.layers), info.model.n_heads)
    for name, array in {**scores, **curves}.items():
        wanted, dims = (info.scores, 3) if name in scores else (info.curves, 4)
        if name not in wanted or array.ndim != dims or array.shape[1:3] != shape or not array.size:
            yield f"its {name} does not fit its run.json"
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            yield f"its {name} holds what is no number (NaN or infinity)"
    if not scores:
        yield "it holds no scores"
    for name in (*info.scores, *info.curves):
        if name not in scores and name not in curves and not _unanswered(info, name):
            yield f"its {name} is missing, which its run.json lists as measured"


def _unanswered(info: RunInfo, name: str) -> bool:
    """Whether a score may be missing: the model answered none of its probe's prompts."""
    probe = info.scores[name].probe if name in info.scores else ""
    asked = info.probes.get(probe, {}).get("prompts")
    return any(
        asked == {"family": family.family, **family.parameters} and not any(family.accepted)
        for family in info.families.values()
    )


def _damaged(folder: Path, info: RunInfo, what: str) -> HeadscopeError:
    again = "import the files" if info.kind == "imported" else "scan"
    return HeadscopeError(f"{folder} is damaged: {what}; delete the folder and {again} again.")
