"""From finding to profile: per-head rules, what they cost, and attention that runs by them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use: a profile is read without transformers.
_HOMES = {
    "HeadCache": "headscope.head_cache",
    "SparseProfile": "headscope.sparsity.profile",
    "drop_profile": "headscope.sparsity.serving",
    "use_profile": "headscope.sparsity.serving",
    "using_profile": "headscope.sparsity.serving",
}

if TYPE_CHECKING:
    from headscope.head_cache import HeadCache
    from headscope.sparsity.profile import SparseProfile
    from headscope.sparsity.serving import drop_profile, use_profile, using_profile

__all__ = ["HeadCache", "SparseProfile", "drop_profile", "use_profile", "using_profile"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headscope.sparsity' has no attribute {name!r}")
