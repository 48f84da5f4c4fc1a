"""Which keys a query may see: by positions alone here, by content in `selectors`."""

from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.selection import Selection
from headscope.patterns.streaming import Streaming

__all__ = ["Full", "Pattern", "Selection", "Streaming"]
