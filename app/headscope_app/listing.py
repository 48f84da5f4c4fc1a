"""What lies in the given folders: runs, and files of results. Nothing outside them is looked at."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from headscope.errors import HeadscopeError

KINDS = {
    "validation": "validation",
    "evaluation": "evaluation",
    "effects": "effects of single heads",
    "patch_map": "activation patching",
    "pareto": "quality against cost",
    "sparse_profile": "profile",
    "sparse_plan": "plan",
    "sparse_costs": "measured costs",
    "pruning": "pruning",
    "bench": "speed",
}
"""Files of results that are known, by the kind that they say they are."""

_DEEPEST = 6  # folders below a given one
_MOST = 20_000  # entries that are looked at, so that a whole disk given by mistake ends
_HEAD = 400  # bytes of a file that say of which kind it is
_KIND = re.compile(rb'"kind":\s*"([a-z_]{1,40})"')


@dataclass(frozen=True)
class Place:
    """Something found in a given folder.

    Attributes:
        id: by which a browser names it; says nothing of where it lies.
        name: its path from the given folder on, that folder's name included.
        kind: "run", or the kind of a file of results.
        run: the id of the run that a file lies in, "" if in none.
    """

    id: str
    name: str
    path: Path
    kind: str
    run: str = ""


@dataclass
class Listing:
    """All that was found, and in words what was not looked at."""

    places: list[Place] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Roots:
    """The folders that may be read. A path is in one of them only if it is so without its links."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, folders: list[Path]) -> "Roots":
        """Folders that are there.

        Raises:
            HeadscopeError: one is not.
        """
        for folder in folders:
            if not folder.is_dir():
                raise HeadscopeError(
                    f"There is no folder {folder}; name one that holds run folders, made by "
                    "`headscope scan MODEL --out RUNS/NAME`."
                )
        real = [Path(os.path.realpath(folder)) for folder in folders]
        return cls(tuple(dict.fromkeys(real)))

    def hold(self, path: Path) -> bool:
        """Whether a path, all links followed, lies in one of the folders."""
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(folder) for folder in self.folders)

    def without(self, text: str) -> str:
        """A text in which paths begin at the given folders, so that a browser is told no more."""
        for folder in self.folders:
            text = text.replace(str(folder), folder.name)
        return text

    def look(self) -> Listing:
        """Everything in the folders, in the order of its names."""
        found, budget = Listing(), [_MOST]
        seen: set[Path] = set()
        for root in self.folders:
            for place in self._walk(root, root, _DEEPEST, "", budget, found.notes):
                if place.path not in seen:  # one given folder may lie in another
                    seen.add(place.path)
                    found.places.append(place)
        if budget[0] <= 0:
            found.notes.append(
                f"Only the first {_MOST} files and folders were looked at; give a folder that "
                "holds runs and little else."
            )
        return found

    def _walk(
        self, folder: Path, root: Path, depth: int, run: str, budget: list[int], notes: list[str]
    ) -> Iterator[Place]:
        """A folder's own places, then those of the folders in it."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            notes.append(f"{self.name(folder, root)} cannot be read ({error.strerror}).")
            return
        names = {entry.name for entry in entries}
        if "run.json" in names:
            run = identity(folder)
            yield Place(run, self.name(folder, root), folder, "run")
        below = []
        for entry in entries:
            budget[0] -= 1
            if budget[0] <= 0:
                return
            path = Path(entry.path)
            if entry.is_symlink() and not self.hold(path):
                name = self.name(path, root)
                notes.append(f"{name} is a link out of the given folders, and is not followed.")
            elif entry.name.startswith("."):
                continue
            elif entry.is_dir():
                below.append(path)
            elif entry.name.endswith(".json") and entry.name != "run.json" and entry.is_file():
                kind = kind_of(path)
                if kind in KINDS:
                    yield Place(identity(path), self.name(path, root), path, kind, run)
        for path in below if depth else ():
            if not path.is_symlink():  # what it leads to is listed where it lies
                yield from self._walk(path, root, depth - 1, run, budget, notes)

    def name(self, path: Path, root: Path) -> str:
        """How a path is shown: as text, whatever bytes it is made of."""
        name = os.path.join(root.name, os.path.relpath(path, root)).removesuffix("/.")
        return os.fsencode(name).decode("utf-8", "replace")


def identity(path: Path) -> str:
    """The same for a path every time, so that links stay good, and no way back to it."""
    return sha256(os.fsencode(path)).hexdigest()[:12]


def kind_of(path: Path) -> str:
    """The kind that a file of results says it is, "" if it says none."""
    try:
        with path.open("rb") as file:
            found = _KIND.search(file.read(_HEAD))
    except OSError:
        return ""
    return found[1].decode() if found else ""
