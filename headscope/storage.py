"""Files that are either whole or not there."""

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import pandas as pd
from pyarrow.parquet import read_metadata
from safetensors import SafetensorError
from safetensors.numpy import load, save

from headscope.errors import HeadscopeError

_Found = TypeVar("_Found")


def write(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new, never a part.

    A link stays one: the file that it leads to is written.

    Raises:
        HeadscopeError: something stands there that is no file, the disk is full, or the folder
            cannot be written to.
    """
    _refuse_what_is_no_file(path)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise HeadscopeError(
            f"{path} could not be written: {reason}. What was saved before is intact; make room "
            "and run the same command again, or choose another folder with --out."
        ) from error


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder of files in one step: all of them are there, or none.

    Args:
        path: a folder that is not there yet, or is empty.
        contents: by name.

    Raises:
        HeadscopeError: something stands there already, the disk is full, or the place cannot be
            written to.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise HeadscopeError(f"{path} is not a new or empty folder; name another place.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            work = Path(temporary, "whole")
            work.mkdir()
            for name, content in contents.items():
                write(work / name, content)
            os.replace(work, target)
    except OSError as error:
        raise HeadscopeError(
            f"{path} could not be written: {error.strerror or error}; make room, or choose "
            "another folder."
        ) from error


def read(path: Path) -> bytes:
    """A file's content; a sentence instead of a traceback where it is missing."""
    _refuse_what_is_no_file(path)  # reading a pipe would wait for whoever writes to it
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise HeadscopeError(
            f"{path} cannot be read: there is no such file; check its name, and that the folder "
            "it was in is whole."
        ) from error
    except OSError as error:
        raise HeadscopeError(
            f"{path} cannot be read ({error.strerror}); is {path.parent} a folder that headscope "
            "wrote, and whole?"
        ) from error


def _refuse_what_is_no_file(path: Path) -> None:
    """A rename would put a file in the place of a device or a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # what is wrong with it shows where it is opened
    if stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    kind = next((name for test, name in kinds if test(mode)), "device")
    raise HeadscopeError(f"{path} is a {kind}, and no file can be kept there; name another place.")


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Named arrays as one safetensors file, with what is known of them in its header."""
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write(path, save(content, None if metadata is None else dict(metadata)))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays of a safetensors file.

    Raises:
        HeadscopeError: the file is missing or damaged.
    """
    return read_described(path)[0]


def read_described(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Named arrays of a safetensors file, and what its header tells of them.

    Raises:
        HeadscopeError: the file is missing or damaged.
    """
    content = read(path)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError) as error:
        raise HeadscopeError(
            f"{path} is damaged ({error}); delete it and measure again."
        ) from error
    return arrays, described(content)


def described(content: bytes) -> dict[str, str]:
    """What the header of a safetensors file tells of it, of a file that was read without error."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]).get("__metadata__", {})


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A table as parquet."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    write(path, buffer.getvalue())


def read_table(path: Path) -> pd.DataFrame:
    """A parquet table.

    Raises:
        HeadscopeError: the file is missing or damaged.
    """
    return _of_parquet(path, pd.read_parquet)


def rows_in(path: Path) -> int:
    """How many rows a parquet table has; a small file may hold so many that they fill the memory.

    Raises:
        HeadscopeError: the file is missing or damaged.
    """
    return _of_parquet(path, lambda content: read_metadata(content).num_rows)


def _of_parquet(path: Path, reader: Callable[[BytesIO], _Found]) -> _Found:
    content = read(path)
    try:
        return reader(BytesIO(content))
    except Exception as error:  # pyarrow has no one class for what a damaged file can raise
        raise HeadscopeError(f"{path} is damaged; delete it and measure again.") from error
