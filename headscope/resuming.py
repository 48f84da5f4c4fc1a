"""A scan's folder: what is taken up again, what is whole, and what has to go."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap, in_order
from headscope.model import HeadModel
from headscope.planning import Group
from headscope.runinfo import RunInfo


def kept_part(path: Path, group: Group, model: HeadModel) -> dict[str, np.ndarray]:
    """One prompt's scores as they were saved, if they are whole.

    Raises:
        HeadscopeError: they are not.
    """
    try:
        part = storage.read_arrays(path)
        if _is_whole(part, group, (len(model.layers), model.n_heads)):
            return part
        problem = None
    except HeadscopeError as error:
        problem = error
    raise HeadscopeError(
        f"{path} is damaged; delete it and scan again: the rest is kept."
    ) from problem


def _is_whole(part: Mapping[str, np.ndarray], group: Group, shape: tuple[int, int]) -> bool:
    if any(part.get(name, np.empty(0)).shape != (1,) for name in ("accepted", "seconds")):
        return False
    measured = [p for p in group.probes if p.rows != "answer" or p.alters or part["accepted"][0]]
    scores = {name for probe in measured for name in probe.score_names()}
    curves = {name for probe in measured for name in probe.curves}
    return part.keys() == {"accepted", "seconds", *scores, *curves} and all(
        part[name].shape[:2] == shape
        and part[name].ndim == (2 if name in scores else 3)
        and bool(np.isfinite(part[name]).all())
        for name in (*scores, *curves)
    )


def finished(folder: Path, info: RunInfo) -> HeadMap:
    """The map of a scan that was finished before; its table, if it is lost, is made again.

    Raises:
        HeadscopeError: a file is missing or damaged.
    """
    tidy(folder)
    if not (folder / "heads.parquet").exists():
        with _damage_named(folder):
            arrays = storage.read_arrays(folder / "scores.safetensors")
            table = HeadMap(info, in_order(info, arrays)).to_pandas()
        storage.write_table(folder / "heads.parquet", table)
    with _damage_named(folder):
        return HeadMap.load(folder)


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except (HeadscopeError, ValueError) as error:  # arrays of another shape make no table
        raise HeadscopeError(
            f"{folder} holds this scan, finished, but its files are damaged; delete the folder "
            "and scan again."
        ) from error


def take_back(folder: Path) -> None:
    """Remove all that a scan without a result has written."""
    tidy(folder)
    (folder / "run.json").unlink(missing_ok=True)
    with suppress(OSError):  # what others put there stays
        folder.rmdir()


def tidy(folder: Path) -> None:
    """Take away what a finished scan does not need, and what a killed one left half written."""
    shutil.rmtree(folder / "partial", ignore_errors=True)
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
