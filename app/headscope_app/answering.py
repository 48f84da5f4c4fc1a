"""The child's side of a worker: read requests, answer them, and end with the server."""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from headscope.errors import HeadscopeError
from headscope_app import wire

Handler = Callable[[Any], tuple[Any, Sequence[np.ndarray]]]


class OutOfMemory(Exception):
    """There is no more memory: the process says so and ends, which gives back what it held."""


def answer(handle: Handler, out_of_memory: str) -> None:
    """Answer the requests that come through stdin, on stdout, until stdin is closed.

    Args:
        handle: a request's answer and arrays; HeadscopeErrors are handed on as refusals.
        out_of_memory: the sentence that is said where memory runs out.
    """
    answers = _own_stdout()
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    while True:
        request = requests.get()
        try:
            found, arrays = handle(request)
        except HeadscopeError as error:
            wire.send(answers, {"refused": str(error)})
        except (MemoryError, OutOfMemory):
            wire.send(answers, {"refused": out_of_memory, "ends": True})
            os._exit(1)
        except Exception:
            traceback.print_exc()  # its last line is what the server says
            sys.stderr.flush()
            os._exit(1)  # leaving in peace would wait for the thread that reads
        else:
            wire.send(answers, {"answer": found}, arrays)


def dies_first() -> None:
    """Let the kernel take this process first where the whole machine runs out of memory."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_memory(size: int | None = None) -> int:
    """Bound what this process may allocate, where the system can do that.

    Args:
        size: bytes; four fifths of what is free if left out.

    Returns:
        The bytes.
    """
    if size is None:
        size = int(psutil.virtual_memory().available * 0.8)
    with suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        least = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (least, hard))
    return size


def _own_stdout() -> BinaryIO:
    """Stdout for messages alone: what libraries print goes to stderr."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _read(stream: BinaryIO, requests: "queue.SimpleQueue[Any]") -> None:
    while True:
        found = wire.receive(stream)
        if found is None:  # the server is gone, and nobody waits for what is being worked on
            os._exit(0)
        requests.put(found[0])
