"""Triton kernels for attention that differs by head, and for statistics of a pattern.

They know tensors, patterns and selections, and nothing of models. The reference in torch
(`headscope.attention`, `headscope.sparsity.engine`) is the definition that they are held to; Triton
is imported where it is first used.
"""
