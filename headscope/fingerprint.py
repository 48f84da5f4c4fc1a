"""Which weights a result was measured on."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256

import torch
from torch import Tensor

Shape = tuple[int, ...]
Read = tuple[tuple[tuple[Shape, int], ...], bytes]  # shapes and bytes of samples; all their bytes


def fingerprint(parameters: Iterable[Tensor]) -> str:
    """SHA-256 over a thousand evenly spaced entries of every parameter.

    Names are left out, since a bridge gives modules other ones. The entries are read anew each
    time: a parameter's version says nothing of what was written through its `.data`.
    """
    alike: dict[tuple[torch.device, torch.dtype], list[tuple[Shape, Tensor]]] = {}
    for parameter in parameters:
        count, whole = parameter.numel(), parameter.detach()
        step = max(1, count // 1000)
        if whole.is_contiguous():
            some = whole.as_strided((-(-count // step),), (step,))
        else:
            some = whole.flatten()[::step].contiguous()  # a view would keep the copy of all
        if some.element_size() == 1:  # few things are written for the types of 8 bits
            some = some.view(torch.uint8)
        alike.setdefault((some.device, some.dtype), []).append((tuple(parameter.shape), some))
    return _hashed(tuple(map(_read, alike.values())))


def _read(samples: Sequence[tuple[Shape, Tensor]]) -> Read:
    """In one copy, since each copy from a GPU waits for it."""
    sizes = tuple((shape, some.numel() * some.element_size()) for shape, some in samples)
    together = torch.cat([some for _, some in samples]).cpu()
    return sizes, together.view(torch.uint8).numpy().tobytes()


@lru_cache(maxsize=4)
def _hashed(groups: tuple[Read, ...]) -> str:
    """Kept, since a model is mostly asked for again as it was."""
    samples = set()
    for sizes, data in groups:
        start = 0
        for shape, size in sizes:
            samples.add(repr(shape).encode() + data[start : start + size])
            start += size
    return sha256(b"".join(sorted(samples))).hexdigest()
