"""From a budget to rules, what they cost, and files for whoever serves them.

The planner needs torch, so that a process of its own does the work; answers are kept, and a slider
that comes back to where it was finds them.
"""

import io
import json
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope_app.library import Entry, Library
from headscope_app.listing import Roots
from headscope_app.plans import Planned, Request, Source, Speed, Target, Timed
from headscope_app.worker import Answered, Superseded, Worker, WorkerDied

_KEPT = 256  # plans that stay in memory
_TIMEOUT = 60.0  # seconds
# Scores that plans were made by and tested (docs/findings.md): the first choice where nothing was
# measured.
_FIRST = ("duo_gate", "retrieval")


@dataclass
class Planning:
    """Plans of the runs of a library, made in a process of its own."""

    library: Library
    worker: Worker = field(init=False)
    _kept: OrderedDict[Any, Planned] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.worker = Worker(
            "headscope_app.planning_worker", "The process that plans", timeout=_TIMEOUT,
            environment={"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    def catalogue(self) -> dict[str, dict[str, dict[str, str]]]:
        """Probes and evals: by kind and name what each does and costs."""
        return self._ask({"do": "catalogue"})[0]

    def sources(self, run: str) -> list[Source]:
        """What plans of a run can be made of: measured losses first, then profiles, then scores.

        Raises:
            HeadscopeError: there is no such run, or it cannot be read.
        """
        entry = self.library.run(run)
        head_map = self.library.head_map(run)
        paths = self._recalls(entry)
        described = []
        if paths:
            described = self._ask({"do": "recalls", "paths": list(map(str, paths))})[0]
        roots = self.library.roots
        found = [_losses(p, d, head_map, roots) for p, d in zip(paths, described, strict=True)]
        found += [
            Source(f"profile:{place.id}", "profile", f"profile {place.path.stem}")
            for place in self.library.files(run)
            if place.kind == "sparse_profile"
        ]
        scores = sorted(head_map.scores, key=lambda name: (name not in _FIRST, name))
        return found + [Source(f"score:{name}", "score", name) for name in scores]

    def plan(self, request: Request, lane: str = "") -> Planned:
        """A plan, kept or made anew.

        Raises:
            Superseded: the same lane has asked something else since.
            HeadscopeError: the budget cannot be met, or a file is gone or damaged.
        """
        asked = self._asked(request)
        stamps = [_stamp(path) for path in _paths(asked)]
        key = json.dumps([asked, stamps])
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found, _ = self._ask(asked, lane)
        made = _planned(found)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def targets(self, planned: Planned, ranks: int = 1) -> list[Target]:
        """Every export format, seen from a profile.

        Args:
            ranks: of tensor parallelism, where a format has to know.
        """
        asked = {"do": "formats", "profile": planned.profile, "n": planned.n, "ranks": ranks}
        return [Target(**each | {"files": tuple(each["files"])}) for each in self._ask(asked)[0]]

    def export(self, planned: Planned, format: str, ranks: int = 1) -> tuple[str, bytes]:
        """(name, content) of a file to save: of formats with several files, a zip archive of them.

        What is written was read back and found to say the same.

        Raises:
            HeadscopeError: there is no such format, or it cannot express the profile.
        """
        asked = {
            "do": "export", "format": format, "profile": planned.profile, "n": planned.n,
            "ranks": ranks,
        }  # fmt: skip
        found, arrays = self._ask(asked)
        contents = [array.tobytes() for array in arrays]
        if len(contents) == 1:
            return found["names"][0], contents[0]
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in zip(found["names"], contents, strict=True):
                zipped.writestr(zipfile.ZipInfo(name), content)
        return f"{format}.zip", archive.getvalue()

    def close(self) -> None:
        """End the process."""
        self.worker.close()

    def _ask(self, asked: dict[str, Any], lane: str = "") -> Answered:
        try:
            return self.worker.ask(asked, lane)
        except (Superseded, WorkerDied):
            raise
        except HeadscopeError as error:
            raise HeadscopeError(self.library.roots.without(str(error))) from error

    # ---- files -----------------------------------------------------------------------------

    def _recalls(self, entry: Entry) -> list[Path]:
        """Files of losses of a run, the latest first."""
        found = [
            path
            for path in (entry.path / "profiles").glob("recalls-*.safetensors")
            if self.library.roots.hold(path) and path.is_file()
        ]
        return sorted(found, key=lambda path: -path.stat().st_mtime)

    def _asked(self, request: Request) -> dict[str, Any]:
        """A request for the process, with paths in the place of keys."""
        entry = self.library.run(request.run)
        if not 0 < request.share <= 1 or not 1 <= request.n <= 2**24:
            raise HeadscopeError("A budget is a share above 0 and up to 1, of one token at least.")
        if request.sink < 0 or request.window < 1:
            raise HeadscopeError("A streaming rule has a sink of 0 tokens or more and a window.")
        files = self.library.files()
        asked: dict[str, Any] = {
            "do": "plan",
            "budget": f"{request.kind}={request.share:g}",
            "n": request.n,
            "granularity": request.granularity,
            "costs": [
                str(each.path) for each in files
                if each.kind == "sparse_costs" and each.run == entry.id
            ],
            "benches": [str(each.path) for each in files if each.kind == "bench"],
        }  # fmt: skip
        kind, _, name = request.source.partition(":")
        if kind == "losses":
            path = next((p for p in self._recalls(entry) if p.name == name), None)
            if path is None:
                raise HeadscopeError("These losses are not there any more; choose others.")
            return asked | {
                "recalls": str(path), "rules": list(request.rules), "loss": request.loss,
            }  # fmt: skip
        if kind == "profile":
            place = self.library.file(name)
            self.library.check(place)
            return asked | {"saved": str(place.path)}
        if kind == "score" and name in self.library.head_map(request.run).scores:
            return asked | {
                "run": str(entry.path), "score": name, "sink": request.sink,
                "window": request.window,
            }  # fmt: skip
        raise HeadscopeError("Choose what to plan by: measured losses, a profile or a score.")


def _losses(path: Path, found: dict[str, Any], head_map: HeadMap, roots: Roots) -> Source:
    key, name = f"losses:{path.name}", f"losses {path.stem.removeprefix('recalls-')}"
    problem = roots.without(found["problem"])
    if "rules" not in found:
        return Source(key, "losses", name, problem=problem)
    if found["fingerprint"] not in (None, head_map.info.model.fingerprint):
        problem = "They were measured on other weights than this run's."
    lengths = ", ".join(map(str, found["lengths"]))
    losses = [(each, told) for each, told in found["losses"].items()]
    losses.sort(key=lambda each: each[0] != found["best"])
    return Source(
        key, "losses", f"measured losses: {found['prompts']} prompts of {lengths} tokens",
        tuple(found["rules"]), tuple(found["lengths"]), tuple(losses), problem,
    )  # fmt: skip


def _planned(found: dict[str, Any]) -> Planned:
    plan = found["plan"] or {}
    return Planned(
        profile=found["profile"],
        rules=tuple(found["names"]),
        shares=tuple(found["shares"]),
        grid=tuple(tuple(row) for row in found["grid"]),
        layers=tuple(found["layers"]),
        n_kv_heads=found["n_kv_heads"],
        n=found["n"],
        density=found["density"],
        held=found["held"],
        kv_bytes=found["kv_bytes"],
        full_bytes=found["full_bytes"],
        speeds=tuple(Speed(**each) for each in found["speeds"]),
        timed=tuple(Timed(**each) for each in found["timed"]),
        lost=plan.get("lost"),
        bound=plan.get("bound"),
        sentences=tuple(found["sentences"]),
    )


def _paths(asked: dict[str, Any]) -> list[Path]:
    one = asked.get("recalls") or asked.get("saved") or f"{asked.get('run')}/scores.safetensors"
    return [Path(each) for each in (one, *asked["costs"], *asked["benches"])]


def _stamp(path: Path) -> Sequence[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
