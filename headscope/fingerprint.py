"""Which weights a result was measured on."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

import torch
from torch import Tensor

Shape = tuple[int, ...]


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
    every = {one for samples in alike.values() for one in _read(samples)}
    return sha256(b"".join(sorted(every))).hexdigest()


def _read(samples: Sequence[tuple[Shape, Tensor]]) -> Iterator[bytes]:
    """Shape and entries of each, in one copy, since each copy from a GPU waits for it."""
    together = torch.cat([some for _, some in samples]).cpu()
    for (shape, _), some in zip(samples, together.split([len(x) for _, x in samples]), strict=True):
        yield repr(shape).encode() + some.view(torch.uint8).numpy().tobytes()
