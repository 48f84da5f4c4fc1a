"""Which keys a query may see: static patterns here, content-dependent selectors later."""

from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.streaming import Streaming

__all__ = ["Full", "Pattern", "Streaming"]
