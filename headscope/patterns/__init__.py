"""Which keys a query may see: by positions alone here, by content in `selectors`."""

from headscope.patterns.base import Pattern
from headscope.patterns.dilated import Dilated
from headscope.patterns.full import Full
from headscope.patterns.power_of_two import PowerOfTwo
from headscope.patterns.radial import Radial
from headscope.patterns.selection import Selection
from headscope.patterns.sharded import Sharded
from headscope.patterns.streaming import Streaming
from headscope.patterns.strided import Strided

__all__ = [
    "Dilated",
    "Full",
    "Pattern",
    "PowerOfTwo",
    "Radial",
    "Selection",
    "Sharded",
    "Streaming",
    "Strided",
]
