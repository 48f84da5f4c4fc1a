"""A worker without a model, for tests of what stands around one."""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from headscope.errors import HeadscopeError
from headscope_app.answering import OutOfMemory, answer


def handle(request: dict[str, Any]) -> tuple[Any, Sequence[np.ndarray]]:
    match request["do"]:
        case "echo":
            return request["what"], [np.arange(6, dtype="float32").reshape(2, 3)]
        case "sleep":
            time.sleep(request["seconds"])
        case "print":
            print("not an answer", flush=True)
        case "refuse":
            raise HeadscopeError("Not that.")
        case "allocate":
            raise MemoryError
        case "run out":
            raise OutOfMemory
        case "break":
            raise RuntimeError("a bug")
        case "leave":
            os._exit(3)
    return os.getpid(), []


if __name__ == "__main__":
    answer(handle, "There was not enough memory.")
