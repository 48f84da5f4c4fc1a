"""Rules that look at queries and keys to choose what each row sees, one file each."""

from headscope.patterns.selectors.base import Selector

__all__ = ["Selector"]
