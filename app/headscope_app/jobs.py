"""Scans and validations as processes of their own: started, watched, cancelled, taken up again."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from headscope.errors import HeadscopeError
from headscope.smollm2 import cache_folder
from headscope_app.job import Job, JobState, Log, Progress, with_coming
from headscope_app.listing import identity
from headscope_app.tasks import Scan, Task, check_model, check_name

_KEPT = 50  # jobs that are remembered
_PATIENCE = 5.0  # seconds between asking a process to end and ending it


@dataclass
class Jobs:
    """The jobs of one set of folders.

    What is known of them lies in headscope's cache and not beside the runs: a folder of runs may
    be someone else's, and what it says must start or end no process.

    Attributes:
        folders: in which runs may be written.
        most: how many may run at once.
    """

    folders: Sequence[Path]
    most: int = 1
    place: Path = field(init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _own: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)
    _logs: dict[str, Log] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        folders = sorted(str(folder.resolve()) for folder in self.folders)
        self.place = cache_folder() / "jobs" / identity(Path("\n".join(folders)))

    # ---- looked at -------------------------------------------------------------------------

    def all(self) -> list[Job]:
        """Every job that is remembered, the latest first, as it stands now."""
        found = []
        with self._lock:
            for path in self.place.glob("*.json"):
                with suppress(HeadscopeError):
                    found.append(self._seen(Job.load(path)))
        return sorted(found, key=lambda job: -job.begun)

    def job(self, id: str) -> Job:
        """One job as it stands now.

        Raises:
            HeadscopeError: there is none of that id.
        """
        for job in self.all():
            if job.id == id:
                return job
        raise HeadscopeError("There is no such job, or it is forgotten; look at the list of runs.")

    def progress(self, job: Job) -> Progress:
        """How far a job is, from what it wrote to stderr and to its folder."""
        with self._lock:
            log = self._logs.setdefault(job.id, Log(self._file(job.id, "log")))
            progress = log.read()
        ahead = job.what == "scan" and job.state != "done"
        return with_coming(progress, job.folder) if ahead else progress

    # ---- started and ended -----------------------------------------------------------------

    def scan(self, task: Scan, name: str, root: Path, known: Sequence[str] = ()) -> Job:
        """Scan into a new run folder.

        Args:
            name: of the folder.
            root: one of the given folders.
            known: models of runs that are there, which may be named wherever they lie.

        Raises:
            HeadscopeError: the name is none or taken, the model is not for here, a field makes no
                sense, or as many jobs run as may.
        """
        check_name(name)
        check_model(task.model, self.folders, known)
        folder = self._inside(root, root / name)
        if os.path.lexists(folder):
            raise HeadscopeError(
                f"There is a {name} already; choose another name, or go on with that run."
            )
        return self._start("scan", task, name, folder)

    def on_run(self, task: Task, name: str, folder: Path) -> Job:
        """Validate a run, or measure its heads' losses.

        Args:
            name: of the run, as it is shown.
            folder: of the run.

        Raises:
            HeadscopeError: it holds no run, a field makes no sense, or as many jobs run as may.
        """
        folder = self._inside(folder, folder)
        if not (folder / "run.json").is_file():
            raise HeadscopeError(f"{name} holds no run any more; choose another.")
        what = task.arguments(folder)[0]
        return self._start(what, task, name, folder)

    def resume(self, id: str) -> Job:
        """Go on with a job that ended early: its command once more, which measures nothing twice.

        Raises:
            HeadscopeError: it runs or is done, or as many jobs run as may.
        """
        with self._lock:
            job = self.job(id)
            if not job.resumable:
                raise HeadscopeError(f"{job.name} is {job.state}; there is nothing to go on with.")
            return self._run(job.id, job.what, job.name, job.folder, job.arguments)

    def cancel(self, id: str) -> Job:
        """End a job and every process of its group; what it measured stays in its folder.

        Raises:
            HeadscopeError: there is none of that id.
        """
        with self._lock:
            job = self.job(id)
            return self._ended_by_us(job, "cancelled") if job.state == "running" else job

    def close(self, keep: bool = False) -> None:
        """End every job that runs, unless they are to be kept; the next server knows them all."""
        with self._lock:
            for job in self.all():
                if job.state == "running" and not keep:
                    self._ended_by_us(job, "stopped")
            for own in self._own.values():
                own.poll()

    # ---- how -------------------------------------------------------------------------------

    def _inside(self, root: Path, folder: Path) -> Path:
        real = Path(os.path.realpath(root))
        if not any(real.is_relative_to(each.resolve()) for each in self.folders):
            raise HeadscopeError("Runs are written into the folders that the app was started with.")
        return real if folder == root else real / folder.name

    def _start(self, what: str, task: Task, name: str, folder: Path) -> Job:
        with self._lock:
            return self._run(secrets.token_hex(6), what, name, folder, task.arguments(folder))

    def _run(self, id: str, what: str, name: str, folder: Path, arguments: Sequence[str]) -> Job:
        running = [job for job in self.all() if job.state == "running"]
        if len(running) >= self.most:
            raise HeadscopeError(
                f"{running[0].what} {running[0].name} is running; wait for it, or cancel it first."
            )
        self._forget()
        self.place.mkdir(parents=True, exist_ok=True, mode=0o700)
        packages = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        with self._file(id, "out").open("wb") as out, self._file(id, "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "headscope", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, packages))},
                start_new_session=True,  # a group of its own, which ends as one
            )
        self._own[id] = process
        self._logs.pop(id, None)
        try:
            started = psutil.Process(process.pid).create_time()
        except psutil.Error:
            started = 0.0
        job = Job.model_validate(
            {
                "id": id, "what": what, "name": name, "folder": folder, "state": "running",
                "arguments": tuple(arguments), "pid": process.pid, "started": started,
                "begun": time.time(),
            }
        )  # fmt: skip
        return self._keep(job)

    def _seen(self, job: Job) -> Job:
        """A job as it stands now; its end is noticed here."""
        if job.state != "running":
            return job
        own = self._own.get(job.id)
        if (own.poll() is None) if own is not None else (job.process() is not None):
            return job
        code = None if own is None else own.returncode
        if own is None:  # another server started it: its code is not known, what it printed is
            with suppress(OSError):
                printed = self._file(job.id, "out").read_bytes()
                code = 0 if printed.rstrip().endswith(b"}") else None
        said = Log(self._file(job.id, "log")).read().said
        state, told = _end(code, said)
        ended = max(job.begun, self._last_words(job))
        return self._keep(job.model_copy(update={"state": state, "told": told, "ended": ended}))

    def _last_words(self, job: Job) -> float:
        """When it last wrote: nobody may have looked at the page for hours after its end."""
        written = [self._file(job.id, ending) for ending in ("out", "log")]
        return max((path.stat().st_mtime for path in written if path.exists()), default=time.time())

    def _ended_by_us(self, job: Job, state: JobState) -> Job:
        self._end_group(job)
        told = "What it measured is saved; it can go on from there."
        return self._keep(
            job.model_copy(update={"state": state, "told": told, "ended": time.time()})
        )

    def _end_group(self, job: Job) -> None:
        process = job.process()
        if process is None:
            return
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(job.pid, sent)
            with suppress(psutil.Error):
                process.wait(_PATIENCE)
                break
        if (own := self._own.get(job.id)) is not None:
            own.wait()

    def _keep(self, job: Job) -> Job:
        job.save(self._file(job.id, "json"))
        return job

    def _forget(self) -> None:
        """Let go of the oldest jobs that ended."""
        for job in [job for job in self.all() if job.state != "running"][_KEPT - 1 :]:
            for ending in ("json", "log", "out"):
                self._file(job.id, ending).unlink(missing_ok=True)
            self._logs.pop(job.id, None)
            self._own.pop(job.id, None)

    def _file(self, id: str, ending: str) -> Path:
        return self.place / f"{id}.{ending}"


def _end(code: int | None, said: str) -> tuple[JobState, str]:
    """How a process ended, from its exit code, where that is known, and its last words."""
    if code == 0:
        return "done", ""
    if code is None:
        return "stopped", "It ended while no server was watching; it can go on from there."
    if code < 0:
        name = signal.Signals(-code).name
        return "failed", (
            f"It was killed ({name}), perhaps for lack of memory; it can go on from there."
        )
    return "failed", said.removeprefix("headscope: ") or f"It ended with code {code}."
