"""Which implementation runs: headscope's Triton kernels, or the reference in torch."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, wraps
from importlib.util import find_spec
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor

from headscope.errors import HeadscopeError

Impl = Literal["auto", "reference", "triton"]

P = ParamSpec("P")
R = TypeVar("R")
DTYPES = (torch.bfloat16, torch.float16)
WIDTHS = (64, 96, 128, 256)
_LEAST = (8, 0)  # compute capability: bfloat16 and asynchronous copies begin with it
_chosen: ContextVar[Impl] = ContextVar("impl", default="auto")
_log = logging.getLogger("headscope")


@contextmanager
def using(impl: Impl) -> Iterator[None]:
    """Choose the implementation for a scope.

    Args:
        impl: "auto" takes Triton where it can run and says once where it cannot, "triton" refuses
            there, "reference" is the definition in torch.

    Raises:
        HeadscopeError: there is no such implementation.
    """
    if impl not in get_args(Impl):
        raise HeadscopeError(f"impl is one of {', '.join(get_args(Impl))}, not {impl!r}.")
    token = _chosen.set(impl)
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen() -> Impl:
    """The implementation that is asked for here."""
    return _chosen.get()


def runs(reason: str | None, what: str, instead: str = "the reference in torch") -> bool:
    """Whether Triton runs something, here and now.

    Args:
        reason: why it cannot, as a clause ("heads are 80 wide"); None if it can.
        what: what would run, for the sentence ("Sparse attention").
        instead: what does where it cannot.

    Raises:
        HeadscopeError: it cannot, and impl="triton" was asked for.
    """
    if chosen() == "reference":
        return False
    if reason is None:
        return True
    if chosen() == "triton":
        raise HeadscopeError(f"{what} cannot run on Triton: {reason}. Use impl='auto'.")
    notice(f"{what} runs on {instead}: {reason}.")
    return False


@lru_cache(maxsize=256)
def notice(sentence: str) -> None:
    """Say something once in a process, on stderr unless logging was set up otherwise."""
    _log.warning("%s", sentence)


def nobody_asks(device: torch.device) -> bool:
    """Whether a device is a CPU that Triton is neither interpreted on nor asked for: the reference
    runs there, of which nothing has to be said."""
    return device.type == "cpu" and not interpreted() and chosen() != "triton"


def interpreted() -> bool:
    """Whether Triton's kernels are interpreted, on whatever device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_no_triton(device: torch.device) -> str | None:
    """What keeps Triton from running on a device; None if nothing does."""
    if not _installed():
        return "the package triton is not installed"
    if interpreted():
        return None
    if device.type != "cuda":
        return "there is no GPU here" if not torch.cuda.is_available() else "it is on the CPU"
    return _too_old(device)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@lru_cache(maxsize=64)
def gpu(device: torch.device) -> Any:
    """The properties of a GPU, which torch looks up anew each time: as long as a launch takes."""
    return torch.cuda.get_device_properties(device)


def fetches_tiles(device: torch.device) -> bool:
    """Whether tensor descriptors work on a device: from capability 9.0 on, or interpreted."""
    return device.type != "cuda" or gpu(device).major >= 9


@lru_cache(maxsize=64)
def _too_old(device: torch.device) -> str | None:
    found = torch.cuda.get_device_capability(device)
    if found < _LEAST:
        name = torch.cuda.get_device_name(device)
        return f"{name} has compute capability {found[0]}.{found[1]}, and 8.0 is needed"
    return None


def on_its_device(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that launches kernels do so on the device of its first argument, a tensor or
    something with a tensor `q`: Triton takes the current device, whatever it is given."""

    @wraps(function)
    def there(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        x: Tensor = first if isinstance(first, Tensor) else first.q
        if not x.is_cuda or x.get_device() == torch.cuda.current_device():
            return function(*args, **kwargs)
        with torch.cuda.device(x.device):
            return function(*args, **kwargs)

    return there


def why_not_these(*tensors: Tensor) -> str | None:
    """What keeps the kernels from taking q, k and v, [.., .., token, d]; None if nothing does."""
    dtype, device = tensors[0].dtype, tensors[0].device
    if any(x.dtype != dtype or x.device != device for x in tensors):
        return "q, k and v differ in dtype or device"
    if dtype not in DTYPES:
        taken = " and ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        return f"it takes {taken}, and these are {str(dtype).removeprefix('torch.')}"
    widths = {x.shape[-1] for x in tensors}
    if len(widths) > 1 or not widths <= set(WIDTHS):
        shown = " and ".join(map(str, sorted(widths)))
        return f"it takes heads {', '.join(map(str, WIDTHS))} wide, and these are {shown}"
    if any(x.shape[-2] >= 2**31 - 2**16 for x in tensors):
        return "it counts tokens in 32 bits"
    if dtype == torch.bfloat16 and interpreted():
        return "Triton's interpreter multiplies no bfloat16"
    return why_no_triton(device)
