"""Others' files about heads: one format each; being here registers them."""

from headscope.export.base import Format

__all__ = ["Format"]
