"""What a measurement was made on: printed first by every benchmark, kept with its result."""

import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import torch

from headscope.runinfo import versions


def command() -> str:
    """What was run."""
    return f"python {shlex.join(sys.argv)}"


def environment() -> str:
    """Date, versions and processor."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = " · ".join(f"{k} {v}" for k, v in versions().items())
    cores = f"{cpu} · {os.cpu_count()} cores · {torch.get_num_threads()} threads"
    return f"{date.today().isoformat()} · {packages}\n{cores}"


def describe() -> None:
    """All of it, for the top of a result."""
    print(f"$ {command()}\n{environment()}\n", flush=True)


def memory_now() -> int:
    """Resident bytes of this process."""
    return _status("VmRSS")


def memory_private() -> int:
    """Resident bytes of this process that no file stands behind: what it allocated itself."""
    return _status("RssAnon")


def reset_peak() -> None:
    """Let the kernel count the peak of resident memory anew from here."""
    Path("/proc/self/clear_refs").write_text("5")


def memory_peak() -> int:
    """Peak of resident bytes since the last reset."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
