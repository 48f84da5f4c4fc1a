"""What the server and its workers say to each other: JSON with arrays behind it, no pickles."""

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

_SIZES = struct.Struct("<II")  # bytes of the JSON, number of arrays
_KINDS = ("uint8", "float32", "int64")
_MOST = 2**28  # bytes of one part: nothing that is sent comes near


def send(stream: BinaryIO, message: Any, arrays: Sequence[np.ndarray] = ()) -> None:
    """Write one message and flush it.

    Args:
        message: JSON values.
        arrays: of uint8, float32 or int64.
    """
    described = [(str(array.dtype), array.shape) for array in arrays]
    text = json.dumps([message, described]).encode()
    stream.write(_SIZES.pack(len(text), len(arrays)) + text)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def receive(stream: BinaryIO) -> tuple[Any, list[np.ndarray]] | None:
    """Read one message and its arrays; None where the other side is gone.

    Raises:
        ValueError: what came is no message.
    """
    head = _exactly(stream, _SIZES.size)
    if head is None:
        return None
    size, count = _SIZES.unpack(head)
    text = _exactly(stream, size)
    if text is None:
        return None
    message, described = json.loads(text)
    if len(described) != count:
        raise ValueError("the arrays are not those that were announced")
    arrays = []
    for kind, shape in described:
        if kind not in _KINDS:
            raise ValueError(f"arrays of {kind} are not sent")
        content = _exactly(stream, int(np.prod(shape)) * np.dtype(kind).itemsize)
        if content is None:
            return None
        arrays.append(np.frombuffer(content, kind).reshape(shape))
    return message, arrays


def _exactly(stream: BinaryIO, size: int) -> bytes | None:
    if size > _MOST:
        raise ValueError(f"a part of {size} bytes is too large")
    content = stream.read(size)
    return content if content is not None and len(content) == size else None
