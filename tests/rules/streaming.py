import math
from fractions import Fraction

from hypothesis import strategies as st

from headscope.patterns import Streaming

STILL = st.builds(Streaming, st.integers(0, 40), st.integers(1, 40))
GROWING = st.builds(
    Streaming, st.integers(0, 9), st.integers(-9, 9), st.sampled_from([0.125, 0.3, 0.5, 1.0])
)
RULES = STILL | GROWING


def sees(rule: Streaming, query: int, key: int) -> bool:
    window = rule.window + math.floor(float(Fraction(rule.growth) * (query + 1)))
    return key < rule.sink or query - key < max(window, 1)
