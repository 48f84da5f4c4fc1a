"""What stands around a worker: turns, deaths, and messages that are whole."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from headscope.errors import HeadscopeError
from headscope_app import wire
from headscope_app.worker import Superseded, Worker, WorkerDied

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parents[1] / "app")])


def soon(met: Callable[[], object]) -> bool:
    """Whether something comes to hold."""
    end = time.monotonic() + 20
    while not met() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(met())


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("echo_worker", "The test's process", environment={"PYTHONPATH": PATHS})
    yield made
    made.close()


def test_an_answer_comes_back_with_its_arrays(worker: Worker) -> None:
    found, arrays = worker.ask({"do": "echo", "what": ["<b>", "é", 1.5, None]})
    assert found == ["<b>", "é", 1.5, None]
    np.testing.assert_array_equal(arrays[0], [[0, 1, 2], [3, 4, 5]])


def test_one_process_answers_all_requests(worker: Worker) -> None:
    assert {worker.ask({"do": "pid"})[0] for _ in range(5)} == {worker.pid}


def test_what_libraries_print_is_no_answer(worker: Worker) -> None:
    assert worker.ask({"do": "print"})[0] == worker.pid


def test_a_refusal_leaves_the_process_alive(worker: Worker) -> None:
    before = worker.ask({"do": "pid"})[0]
    with pytest.raises(HeadscopeError, match=r"^Not that\.$"):
        worker.ask({"do": "refuse"})
    assert worker.ask({"do": "pid"})[0] == before


@pytest.mark.parametrize("how", ["allocate", "run out"])
def test_a_lack_of_memory_is_said_and_a_new_process_answers(worker: Worker, how: str) -> None:
    before = worker.ask({"do": "pid"})[0]
    with pytest.raises(WorkerDied, match=r"^There was not enough memory\.$"):
        worker.ask({"do": how})
    assert not psutil.pid_exists(before)
    assert worker.ask({"do": "pid"})[0] != before


@pytest.mark.parametrize(
    ("do", "said"), [("break", "RuntimeError: a bug"), ("leave", "ended unexpectedly;")]
)
def test_a_process_that_breaks_is_replaced(worker: Worker, do: str, said: str) -> None:
    with pytest.raises(WorkerDied, match=said):
        worker.ask({"do": do})
    assert worker.ask({"do": "pid"})[0] == worker.pid


def test_a_killed_process_is_said_and_replaced(worker: Worker) -> None:
    before = worker.ask({"do": "pid"})[0]
    killer = threading.Timer(0.3, os.kill, (before, signal.SIGKILL))
    killer.start()
    with pytest.raises(WorkerDied, match=r"was killed \(SIGKILL\).* starts again with the next"):
        worker.ask({"do": "sleep", "seconds": 60})
    assert worker.ask({"do": "pid"})[0] != before


def test_a_process_killed_while_nobody_asks_is_replaced_silently(worker: Worker) -> None:
    before = worker.ask({"do": "pid"})[0]
    os.kill(before, signal.SIGKILL)
    assert soon(lambda: worker.pid is None)
    assert worker.ask({"do": "pid"})[0] != before


def test_a_request_that_takes_too_long_is_stopped(worker: Worker) -> None:
    before = worker.ask({"do": "pid"})[0]
    with pytest.raises(WorkerDied, match=r"took more than 0\.2 seconds"):
        worker.ask({"do": "sleep", "seconds": 60}, timeout=0.2)
    assert not psutil.pid_exists(before)
    assert worker.ask({"do": "pid"})[0] != before


def test_of_those_that_wait_the_last_of_a_lane_is_answered(worker: Worker) -> None:
    worker.ask({"do": "pid"})
    said: dict[str, object] = {}

    def ask(name: str, lane: str) -> None:
        try:
            said[name] = worker.ask({"do": "echo", "what": name}, lane)[0]
        except Superseded:
            said[name] = None

    first = threading.Thread(target=worker.ask, args=({"do": "sleep", "seconds": 1.0},))
    first.start()
    assert soon(lambda: worker._busy)
    waiting = []
    for name, lane in [("a1", "a"), ("b1", "b"), ("a2", "a"), ("none", ""), ("a3", "a")]:
        before = worker._waiting
        waiting.append(threading.Thread(target=ask, args=(name, lane)))
        waiting[-1].start()
        assert soon(lambda before=before: worker._waiting > before or None in said.values())
        time.sleep(0.05)
    for thread in (first, *waiting):
        thread.join(20)
    assert said == {"a1": None, "a2": None, "a3": "a3", "b1": "b1", "none": "none"}


def test_a_crowd_is_turned_away(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headscope_app.worker._WAITING", 0)
    with pytest.raises(HeadscopeError, match="too much to do"):
        worker.ask({"do": "pid"})


def test_in_a_crowd_a_lane_may_still_change_its_mind(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headscope_app.worker._WAITING", 1)
    worker.ask({"do": "pid"})
    said: dict[str, object] = {}

    def ask(name: str) -> None:
        try:
            said[name] = worker.ask({"do": "echo", "what": name}, "a")[0]
        except Superseded:
            said[name] = None

    first = threading.Thread(target=worker.ask, args=({"do": "sleep", "seconds": 1.0},))
    waiting = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
    first.start()
    assert soon(lambda: worker._busy)
    waiting[0].start()
    assert soon(lambda: worker._waiting == 1)
    with pytest.raises(HeadscopeError, match="too much to do"):
        worker.ask({"do": "pid"}, "another")
    waiting[1].start()
    for thread in (first, *waiting):
        thread.join(20)
    assert said == {"one": None, "two": "two"}
    assert worker._latest == {}  # nothing is kept of lanes that were turned away


def test_a_closed_worker_says_so(worker: Worker) -> None:
    pid = worker.ask({"do": "pid"})[0]
    worker.close()
    assert not psutil.pid_exists(pid)
    with pytest.raises(WorkerDied, match="is closed"):
        worker.ask({"do": "pid"})


def test_the_process_ends_with_a_server_that_is_killed() -> None:
    script = (
        "import os, time; from headscope_app.worker import Worker\n"
        f"w = Worker('echo_worker', 'It', environment={{'PYTHONPATH': {PATHS!r}}})\n"
        "print(w.ask({'do': 'pid'})[0], flush=True)\n"
        "w.ask({'do': 'sleep', 'seconds': 600}, timeout=600)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": PATHS},
    )
    assert server.stdout is not None
    with server.stdout:
        pid = int(server.stdout.readline())
        server.kill()
        server.wait()
    assert soon(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_a_message_that_is_cut_off_or_of_another_kind_is_none() -> None:
    stream = io.BytesIO()
    wire.send(stream, {"a": 1}, [np.zeros((2, 2), np.uint8)])
    whole = stream.getvalue()
    assert wire.receive(io.BytesIO(whole)) is not None
    for length in (0, 3, 9, len(whole) - 1):
        assert wire.receive(io.BytesIO(whole[:length])) is None
    with pytest.raises(ValueError, match="objec are not sent"):
        wire.receive(io.BytesIO(whole.replace(b"uint8", b"objec")))
