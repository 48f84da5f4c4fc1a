"""What a solver prints past Python's stdout, and who may hold it back."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

hush = False  # set by the command line, which owns its process's stdout; a library does not


@contextmanager
def hushed() -> Iterator[None]:
    """On the command line, nothing reaches the process's stdout from within.

    HiGHS in SciPy 1.17 prints lines of its own debugging there, which would stand in the midst of
    JSON. Elsewhere other threads may be writing, and stdout stays as it is.
    """
    if not hush:
        yield
        return
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is no stdout
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)
