"""A scan of the built-in model, killed at twenty points and continued: the same bytes of scores.

Six kills come inside a save (before, in the middle of, and after the rename of an early and of a
late file); the others at random moments of the model's work. A kill is SIGKILL.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import describe

SCAN = ["smollm2", "--samples", "2", "--lengths", "256", "--quiet"]
FILES = ("heads.parquet", "scores.safetensors")
POINTS = [("before", 3), ("half", 3), ("after", 3), ("before", 11), ("half", 11), ("after", 12)]


def child(when: str, call: int, arguments: list[str]) -> None:
    """The scan, dying by its own hand in its n-th rename."""
    from headscope import cli, storage

    real, calls = os.replace, 0

    def replace(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            if when == "half":
                os.truncate(source, os.path.getsize(source) // 2)
            elif when == "after":
                real(source, target)
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    storage.os.replace = replace
    sys.argv = ["headscope", "scan", *arguments]
    cli.main()


def scan(out: Path, *prefix: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headscope", "scan", *SCAN, "--out", str(out)]
    if prefix:
        command = [sys.executable, __file__, *prefix, *SCAN, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def main() -> None:
    if len(sys.argv) > 1:
        child(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
        return
    describe()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        start = time.perf_counter()
        assert scan(whole).wait() == 0
        length = time.perf_counter() - start
        want = [(whole / name).read_bytes() for name in FILES]
        print(f"uninterrupted: {length:.1f} s\n{'kill':>32}{'saved before':>14}{'same bytes':>12}")
        same = 0
        for number in range(20):
            out = Path(folder) / str(number)
            if number < len(POINTS):
                when, call = POINTS[number]
                name = f"{when} the rename of file {call}"
                running = scan(out, when, str(call))
            else:
                # Random moments of the measuring: most of a short scan is spent opening the model.
                files, moment = rng.randrange(8), rng.uniform(0.0, 0.5)
                name = f"{moment:.2f} s after file {files}"
                running = scan(out)
                while len(list((out / "partial").glob("*.safetensors"))) < files:
                    if running.poll() is not None:
                        break
                    time.sleep(0.01)
                time.sleep(moment)
                running.kill()
            code = running.wait()
            saved = len(list((out / "partial").glob("*.safetensors")))
            assert scan(out).wait() == 0
            equal = [(out / name).read_bytes() for name in FILES] == want
            same += equal
            note = "" if code == -signal.SIGKILL else "  (it had finished)"
            print(f"{name:>32}{saved:>14}{equal!s:>12}{note}", flush=True)
        print(f"{same} of 20 the same")


if __name__ == "__main__":
    main()
