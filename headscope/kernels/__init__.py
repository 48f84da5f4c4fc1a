"""Triton kernels for attention that differs by head, and for statistics of a pattern.

They know tensors, patterns and selections, and nothing of models. The reference in torch
(`headscope.attention`, `headscope.sparsity.engine`) is the definition that they are held to; Triton
is imported where it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headscope.kernels.choice import Impl, using

if TYPE_CHECKING:
    from headscope.kernels.api import Output, sparse_attention

__all__ = ["Impl", "Output", "sparse_attention", "using"]


def __getattr__(name: str) -> Any:
    if name in ("Output", "sparse_attention"):  # attention itself imports this package
        return getattr(import_module("headscope.kernels.api"), name)
    raise AttributeError(f"module 'headscope.kernels' has no attribute {name!r}")
