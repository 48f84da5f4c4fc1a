"""Triton, prepared for tests: interpreted where there is no GPU.

This has to be imported before anything imports Triton, as transformers does.
"""

import os
from importlib.util import find_spec

import torch


def _prepare() -> None:
    # Triton's own functions are interpreted for good where it is imported with this; only the tests
    # of kernels see the variable later, when kernels are decorated and run.
    os.environ["TRITON_INTERPRET"] = "1"
    import triton  # noqa: F401

    del os.environ["TRITON_INTERPRET"]


if find_spec("triton") and not torch.cuda.is_available():
    _prepare()
