"""From finding to profile: per-head rules, what they cost, and attention that runs by them."""

from headscope.sparsity.profile import SparseProfile

__all__ = ["SparseProfile"]
