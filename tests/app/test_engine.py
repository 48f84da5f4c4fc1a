"""A server that ends takes everything with it that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from engine_room import tiny_folder

_SERVER = """
import sys, threading, time
from pathlib import Path
from headscope_app import server
from headscope_app.tasks import Scan

made = server.make_app
def with_work(folders, **options):
    app = made(folders, **options)
    def work():
        engine = app.server.extensions["headscope"]
        engine.planning.catalogue()
        root = Path(folders[0])
        model = str(root / "tiny")
        task = Scan(model=model, probes=("previous_token",), samples=900, lengths=(40,))
        job = engine.jobs.scan(task, "long", root)
        while not (root / "long" / "run.json").exists():
            time.sleep(0.05)
        print("pids", engine.planning.worker.pid, job.pid, flush=True)
    threading.Thread(target=work, daemon=True).start()
    return app
server.make_app = with_work
server.serve([sys.argv[1]], port=0, keep_jobs=sys.argv[2] == "keep")
"""


@pytest.mark.parametrize(("sent", "keep"), [(signal.SIGTERM, "end"), (signal.SIGINT, "keep")])
def test_ending_a_server_ends_its_processes(
    tmp_path: Path, sent: signal.Signals, keep: str
) -> None:
    tiny_folder(tmp_path / "tiny")
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(tmp_path), keep],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HEADSCOPE_CACHE": str(tmp_path / "cache")},
    )
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.readline().startswith("headscope app: http://localhost:")
        worker, job = map(int, server.stdout.readline().split()[1:])
        assert psutil.pid_exists(worker)
        assert psutil.pid_exists(job)
        server.send_signal(sent)
        assert server.wait(30) == 0
    assert not _runs(worker)
    assert _runs(job) == (keep == "keep")
    if keep == "keep":
        os.killpg(job, signal.SIGKILL)


def _runs(pid: int) -> bool:
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.05)
    return True
