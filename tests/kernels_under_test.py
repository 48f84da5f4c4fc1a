"""Triton, prepared for tests: interpreted where there is no GPU, and blind to checks of shapes.

This has to be imported before anything imports Triton, as transformers does.
"""

import inspect
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch


def _prepare() -> None:
    interpreted = not torch.cuda.is_available()
    if interpreted:
        # Triton's own functions are interpreted for good where it is imported with this; only the
        # tests of kernels see the variable later, when kernels are decorated and run.
        os.environ["TRITON_INTERPRET"] = "1"
    import triton

    if interpreted:
        del os.environ["TRITON_INTERPRET"]
    jit = triton.jit

    def plain(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
        """The hook that checks shapes wraps kernels too, and Triton reads names of the wrapper."""
        if fn is None:
            return lambda fn: plain(fn, **options)
        return jit(inspect.unwrap(fn), **options)

    triton.jit = plain


if find_spec("triton"):
    _prepare()
