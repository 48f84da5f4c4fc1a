"""A child process that answers one request at a time, and is started anew when it is gone."""

import itertools
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from headscope.errors import HeadscopeError
from headscope_app import wire

Answered = tuple[Any, list[np.ndarray]]
_WAITING = 32  # requests at most; whoever has more tabs open than that waits for nobody


class Superseded(HeadscopeError):
    """Whoever asked has asked for something else since; there is nothing to show."""


class WorkerDied(HeadscopeError):
    """The process ended before it answered; the next request starts another."""


class Worker:
    """One child process behind a lock.

    It owns what the web server must not hold (torch, a model), so that its death is a sentence on
    a page. It ends by itself when this process does.

    Args:
        module: what `python -m` runs; it calls `headscope_app.answering.answer`.
        name: what it does, for messages: "The worker of live patterns".
        arguments: of its command line.
        timeout: seconds that one request may take, waiting not counted.
        environment: variables that it gets besides this process's own.
    """

    def __init__(
        self,
        module: str,
        name: str,
        arguments: Sequence[str] = (),
        timeout: float = 120.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.module, self.name, self.timeout = module, name, timeout
        self._arguments, self._environment = tuple(arguments), dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._answers: queue.SimpleQueue[Answered | Exception | None] = queue.SimpleQueue()
        self._tickets, self._turn = itertools.count(), threading.Condition()
        self._latest: dict[str, int] = {}
        self._waiting, self._busy, self._closed = 0, False, False

    @property
    def pid(self) -> int | None:
        """Of the running process; None where there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(self, request: Any, lane: str = "", timeout: float | None = None) -> Answered:
        """What the process answers.

        Args:
            request: JSON values.
            lane: whose request it is. A later one of the same lane takes the place of those that
                still wait; without a lane none does.
            timeout: seconds, instead of the worker's own.

        Raises:
            Superseded: a later request of the lane took its place.
            WorkerDied: the process was killed, ran out of memory, or took too long.
            HeadscopeError: the process refused the request, or too many wait.
        """
        self._enter(lane)
        try:
            return self._exchange(request, self.timeout if timeout is None else timeout)
        finally:
            with self._turn:
                self._busy = False
                self._turn.notify_all()

    def close(self) -> None:
        """End the process; later requests are refused."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._stop()

    # ---- turns -----------------------------------------------------------------------------

    def _enter(self, lane: str) -> None:
        with self._turn:
            mine = next(self._tickets)
            # One that takes another's place makes the crowd no larger. One that is turned away
            # takes none.
            if self._waiting >= _WAITING and lane not in self._latest:
                raise HeadscopeError(f"{self.name} has too much to do; try again in a moment.")
            if lane:
                self._latest[lane] = mine
                self._turn.notify_all()
            self._waiting += 1
            try:
                while self._busy and not self._closed and self._is_latest(lane, mine):
                    self._turn.wait()
            finally:
                self._waiting -= 1
            if self._closed:
                raise WorkerDied(f"{self.name} is closed, as the app is stopping.")
            if not self._is_latest(lane, mine):
                raise Superseded("A later request took the place of this one.")
            if lane:
                del self._latest[lane]
            self._busy = True

    def _is_latest(self, lane: str, mine: int) -> bool:
        return not lane or self._latest.get(lane, mine) == mine

    # ---- the process -----------------------------------------------------------------------

    def _exchange(self, request: Any, timeout: float) -> Answered:
        process = self._started()
        try:
            wire.send(cast(Any, process.stdin), request)
            found = self._answers.get(timeout=timeout)
        except OSError:  # its end of the pipe is closed
            found = None
        except queue.Empty:
            self._stop()
            raise WorkerDied(
                f"{self.name} took more than {timeout:g} seconds and was stopped; ask for less, "
                "such as a shorter text."
            ) from None
        if found is None or isinstance(found, Exception):
            raise self._death(process)
        message, arrays = found
        if "refused" in message:
            if message.get("ends"):
                self._stop()
                raise WorkerDied(message["refused"])
            raise HeadscopeError(message["refused"])
        return message["answer"], arrays

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            self._stop()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed where the process ends)
        self._answers = queue.SimpleQueue()
        # The package is found where this one was, installed or not.
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
            | self._environment,
            start_new_session=True,  # Ctrl-C is for the server, which closes it
        )
        threading.Thread(
            target=_listen, args=(self._process.stdout, self._answers), daemon=True
        ).start()
        return self._process

    def _death(self, process: subprocess.Popen[bytes]) -> WorkerDied:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        code, last = process.returncode, self._last_line()
        self._stop()
        if code is not None and code < 0:
            what = f"was killed ({signal.Signals(-code).name}), perhaps for lack of memory"
        elif "MemoryError" in last:
            what = "ran out of memory"
        else:
            what = f"ended unexpectedly ({last})" if last else "ended unexpectedly"
        return WorkerDied(f"{self.name} {what}; it starts again with the next request.")

    def _last_line(self) -> str:
        if self._said is None:
            return ""
        end = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, end - 2000))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                cast(Any, process.stdin).close()
            process.kill()
            process.wait()
        if self._said is not None:
            self._said.close()
            self._said = None


def _listen(stream: Any, answers: "queue.SimpleQueue[Answered | Exception | None]") -> None:
    """Hand over what comes through a pipe, and None when it is closed."""
    with stream:
        while True:
            try:
                found = wire.receive(stream)
            except (OSError, ValueError) as error:
                answers.put(error)
                return
            answers.put(found)
            if found is None:
                return
