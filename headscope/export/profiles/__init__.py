"""Files and tensors that others load a sparse profile from: one format each."""

from headscope.export.profiles.base import ProfileFormat

__all__ = ["ProfileFormat"]
