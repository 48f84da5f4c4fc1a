"""One command that was started from the page: what it is, whether it runs, how far it is."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import psutil
from pydantic import ConfigDict, Field

from headscope.errors import HeadscopeError
from headscope.kept import Kept
from headscope.runinfo import RunInfo

SCHEMA = 1
JobState = Literal["running", "done", "failed", "cancelled", "stopped"]
_TAIL = 2**20  # bytes of a log that are read at once


class Job(Kept):
    """A job as it is kept, so that the next server knows it too.

    Attributes:
        id: of the job.
        what: the command, "scan", "validate" or "plan".
        name: of its run folder, below the given folder.
        folder: the run folder.
        arguments: of `python -m headscope`.
        pid, started: of its process, by which it is known again: a number alone may be another's
            by now.
        begun, ended: seconds since 1970.
        told: what there is to say about its end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    again: ClassVar[str] = "start it again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["job"] = "job"
    id: str
    what: Literal["scan", "validate", "plan"]
    name: str
    folder: Path
    arguments: tuple[str, ...]
    state: JobState
    pid: int
    started: float
    begun: float
    ended: float | None = None
    told: str = ""

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (time.time() if self.ended is None else self.ended) - self.begun

    @property
    def resumable(self) -> bool:
        """Whether it can go on where it stopped."""
        return self.state in ("failed", "cancelled", "stopped")

    def process(self) -> psutil.Process | None:
        """Its process, if that still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


@dataclass(frozen=True)
class Stage:
    """A part of a job: prompts of a family, or questions of an eval, of which some are done."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        stages: in their order, those to come among them where they are known.
        said: the last line that was no progress.
    """

    stages: tuple[Stage, ...]
    said: str

    @property
    def share(self) -> float:
        """Of all prompts that are known of, those that are done."""
        total = sum(stage.total for stage in self.stages)
        return sum(stage.done for stage in self.stages) / total if total else 0.0


@dataclass
class Log:
    """What a job writes to stderr, read as it grows.

    The commands write {"stage": name, "done": 3, "total": 8} for each prompt (`--progress json`);
    every other line is for people.
    """

    path: Path
    _offset: int = field(default=0, init=False)
    _rest: bytes = field(default=b"", init=False)
    _stages: dict[str, Stage] = field(default_factory=dict, init=False)
    _said: str = field(default="", init=False)

    def read(self) -> Progress:
        """All that was written so far."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self._offset)
            while chunk := file.read(_TAIL):
                self._offset += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                self._rest = self._rest[-_TAIL:]
                for line in lines:
                    self._take(line.decode(errors="replace").strip())
        return Progress(tuple(self._stages.values()), self._said)

    def _take(self, line: str) -> None:
        if line.startswith("{"):
            with suppress(ValueError, KeyError, TypeError):
                found = json.loads(line)
                stage = Stage(str(found["stage"]), int(found["done"]), int(found["total"]))
                self._stages[stage.name] = stage
                return
        if line:
            self._said = line[:500]


def with_coming(progress: Progress, folder: Path) -> Progress:
    """A scan's progress with the prompts that it has not come to, which its run.json lists."""
    with suppress(HeadscopeError):
        families = RunInfo.read(folder).families
        known = {stage.name: stage for stage in progress.stages}
        coming = {key: Stage(key, 0, len(family.digests)) for key, family in families.items()}
        return Progress(tuple((coming | known).values()), progress.said)
    return progress
