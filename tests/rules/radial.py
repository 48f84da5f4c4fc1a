from hypothesis import strategies as st

from headscope.patterns import Radial

RULES = st.builds(Radial, st.integers(0, 40), st.integers(1, 9))


def sees(rule: Radial, query: int, key: int) -> bool:
    distance, r = query - key, 0
    while distance >= rule.width * 2**r:
        r += 1
    return key < rule.sink or distance % 2**r == 0
