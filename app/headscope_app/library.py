"""The runs that can be looked at: listed, read, and kept while their files stay as they are."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.runinfo import RunInfo
from headscope_app.listing import Listing, Place, Roots

RunState = Literal["complete", "running", "damaged"]

_FRESH = 0.5  # seconds that a listing is taken for true
_KEPT = 12  # head maps and results that stay in memory
_LARGEST = 64 * 2**20  # bytes of a run.json; more is none
_MOST = 4 * 2**30  # bytes of all that is read of one run, and of all that stay in memory
_LARGEST_RESULT = 256 * 2**20  # bytes of a file of results
_FILES = ("run.json", "scores.safetensors", "heads.parquet", "curves.safetensors")


@dataclass(frozen=True)
class Entry:
    """A run folder as it is listed.

    Attributes:
        info: what its run.json says; None where that cannot be read.
        problem: why it cannot be opened, one sentence; "" if nothing speaks against it.
        changed: when, in seconds since 1970.
        files: kinds of the files of results in it.
    """

    id: str
    name: str
    path: Path
    state: RunState
    info: RunInfo | None
    problem: str
    changed: float
    files: tuple[str, ...] = ()


@dataclass
class Library:
    """Run folders under the given roots, by ids that a browser may be told."""

    roots: Roots
    _listing: tuple[float, Listing] | None = field(default=None, init=False)
    _infos: dict[Path, tuple[Any, RunInfo | HeadscopeError]] = field(
        default_factory=dict, init=False
    )
    _kept: OrderedDict[tuple[type, Path], tuple[Any, Any]] = field(
        default_factory=OrderedDict, init=False
    )
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _busy: dict[Path, threading.Lock] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, folders: Sequence[str | Path]) -> "Library":
        """
        Raises:
            HeadscopeError: a folder is not there.
        """
        return cls(Roots.of([Path(folder) for folder in folders]))

    def listing(self) -> Listing:
        """What lies in the folders, looked up anew if the last time is a while ago."""
        with self._lock:
            now = time.monotonic()
            if self._listing is None or now - self._listing[0] > _FRESH:
                self._listing = (now, self.roots.look())
            return self._listing[1]

    def refresh(self) -> None:
        """Look again at once, after something was written."""
        self._listing = None

    def runs(self) -> list[Entry]:
        """All run folders, those that changed last first."""
        places = self.listing().places
        inside: dict[str, list[str]] = {}
        for place in places:
            inside.setdefault(place.run, []).append(place.kind)
        entries = [
            self._entry(place, tuple(inside.get(place.id, ())))
            for place in places
            if place.kind == "run"
        ]
        return sorted(entries, key=lambda entry: -entry.changed)

    def run(self, id: str) -> Entry:
        """
        Raises:
            HeadscopeError: there is no run of that id, or not any more.
        """
        place = self._place(id, "run")
        return self._entry(place)

    def files(self, run: str | None = None) -> list[Place]:
        """Files of results: of one run, or all of them."""
        places = (place for place in self.listing().places if place.kind != "run")
        return [place for place in places if run is None or place.run == run]

    def file(self, id: str) -> Place:
        """
        Raises:
            HeadscopeError: there is no file of that id, or not any more.
        """
        return self._place(id)

    def check(self, place: Place) -> None:
        """Before a file is handed to whoever reads it.

        Raises:
            HeadscopeError: it leads out of the given folders, or is larger than any result.
        """
        self._refuse_links([place.path])
        if place.path.is_file() and place.path.stat().st_size > _LARGEST_RESULT:
            raise HeadscopeError(
                f"{place.path.name} is larger than {_LARGEST_RESULT // 2**20} MiB, which no file "
                "of results is; it is not read here."
            )

    def head_map(self, id: str) -> HeadMap:
        """A run's head map, read once as long as its files do not change.

        Raises:
            HeadscopeError: it is gone, damaged, unfinished, or from a newer headscope.
        """
        place = self._place(id, "run")
        return self._read(HeadMap, place.path, [place.path / name for name in _FILES])

    def _place(self, id: str, kind: str | None = None) -> Place:
        for place in self.listing().places:
            if place.id == id and (kind is None or place.kind == kind):
                return place
        what = "run" if kind == "run" else "file of results"
        raise HeadscopeError(
            f"There is no such {what} in the given folders, or not any more; go back to the list "
            "of runs."
        )

    def _entry(self, place: Place, files: tuple[str, ...] = ()) -> Entry:
        stamp, found = self._info(place.path)
        changed = stamp[0] / 1e9 if stamp else 0.0
        state: RunState = "damaged"
        info, problem = None, ""
        if isinstance(found, HeadscopeError):
            problem = str(found)
        else:
            info, state = found, found.state
            missing = [name for name in _FILES[1:3] if not (place.path / name).is_file()]
            if state == "complete" and missing:
                state, problem = "damaged", f"Its {' and '.join(missing)} cannot be found."
        return Entry(place.id, place.name, place.path, state, info, problem, changed, files)

    def _info(self, folder: Path) -> tuple[Any, RunInfo | HeadscopeError]:
        (stamp,) = self._stamp([folder / "run.json"])
        known = self._infos.get(folder)
        if known is None or known[0] != stamp:
            known = stamp, self._read_info(folder)
            self._infos[folder] = known
        return known

    def _read_info(self, folder: Path) -> RunInfo | HeadscopeError:
        try:
            self._refuse_links([folder / "run.json"])
            if (folder / "run.json").stat().st_size > _LARGEST:
                return HeadscopeError("Its run.json is larger than that of any run.")
            return RunInfo.read(folder)
        except HeadscopeError as error:
            return HeadscopeError(self.roots.without(str(error)))
        except OSError as error:
            return HeadscopeError(f"Its run.json cannot be read ({error.strerror}).")

    def _read(self, kind: Any, path: Path, files: list[Path]) -> Any:
        """What a class loads from a path; the same object until one of the files changes."""
        stamp, key = self._stamp(files), (kind, path)
        with self._lock:
            busy = self._busy.setdefault(path, threading.Lock())
        with busy:  # two browsers that open one run read it once
            with self._lock:
                known = self._kept.get(key)
                if known is not None and known[0] == stamp:
                    self._kept.move_to_end(key)
                    return known[1]
            self._refuse_links(files)
            self._refuse_what_fills_memory(path, _size(stamp))
            try:
                found = kind.load(path)
            except HeadscopeError as error:
                raise HeadscopeError(self.roots.without(str(error))) from error
            with self._lock:
                self._kept[key] = stamp, found
                while len(self._kept) > _KEPT or (len(self._kept) > 1 and self._held() > _MOST):
                    self._kept.popitem(last=False)
            return found

    def _refuse_links(self, files: Sequence[Path]) -> None:
        for file in files:
            if not self.roots.hold(file):
                raise HeadscopeError(
                    f"{file.name} is a link out of the given folders, and is not read."
                )

    def _held(self) -> int:
        return sum(_size(stamp) for stamp, _ in self._kept.values())

    @staticmethod
    def _refuse_what_fills_memory(path: Path, size: int) -> None:
        if size > _MOST:
            raise HeadscopeError(
                f"{path.name} holds {size / 2**30:.1f} GiB of scores, and {_MOST / 2**30:.0f} are "
                "read here; open it in Python, or scan with fewer samples."
            )

    @staticmethod
    def _stamp(files: Sequence[Path]) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes whenever a file does."""
        stamps = []
        for file in files:
            try:
                stat = file.stat()
                stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                stamps.append(None)
        return tuple(stamps)


def _size(stamp: Sequence[tuple[int, int, int] | None]) -> int:
    """Bytes of the files that a stamp is of."""
    return sum(each[1] for each in stamp if each)
