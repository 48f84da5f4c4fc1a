"""A scan's folder: what is taken up again, what is whole, and what has to go."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap, in_order
from headscope.model import HeadModel
from headscope.planning import Group
from headscope.probes.base import Probe
from headscope.runinfo import RunInfo


def kept_part(path: Path, group: Group, model: HeadModel) -> dict[str, np.ndarray]:
    """One prompt's scores as they were saved, if they are whole.

    Raises:
        HeadscopeError: they are not.
    """

    def whole(part: Mapping[str, np.ndarray]) -> bool:
        accepted = part.get("accepted", np.empty(0))
        if accepted.shape != (1,):
            return False
        some = [p for p in group.probes if p.rows != "answer" or p.alters or accepted[0]]
        return _holds(part, some, model, {"accepted", "seconds"})

    return _kept(path, whole)


def kept_study(path: Path, probe: Probe, model: HeadModel) -> dict[str, np.ndarray]:
    """What a study found as it was saved, [row, layer, head], if it is whole.

    Raises:
        HeadscopeError: it is not.
    """
    return _kept(path, lambda found: _holds(found, [probe], model, {"seconds"}, rows=1))


def _kept(path: Path, whole: Callable[[Mapping[str, np.ndarray]], bool]) -> dict[str, np.ndarray]:
    problem = None
    try:
        found = storage.read_arrays(path)
        if whole(found):
            return found
    except HeadscopeError as error:
        problem = error
    raise HeadscopeError(
        f"{path} is damaged; delete it and scan again: the rest is kept."
    ) from problem


def _holds(
    found: Mapping[str, np.ndarray],
    probes: Iterable[Probe],
    model: HeadModel,
    beside: set[str],
    rows: int = 0,
) -> bool:
    """Whether arrays are all that probes give, finite and of the model's shape.

    Args:
        beside: single numbers that stand there too.
        rows: axes before [layer, head].
    """
    probes = list(probes)
    axes = {name: rows + 2 for probe in probes for name in probe.score_names()}
    axes |= {name: rows + 3 for probe in probes for name in probe.curves}
    shape = len(model.layers), model.n_heads
    return (
        found.keys() == {*axes, *beside}
        and all(found[name].shape == (1,) for name in beside)
        and all(
            found[name].ndim == dims
            and found[name].shape[rows : rows + 2] == shape
            and bool(np.isfinite(found[name]).all())
            for name, dims in axes.items()
        )
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
