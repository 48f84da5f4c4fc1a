from hypothesis import strategies as st

from headscope.patterns import Dilated

RULES = st.builds(Dilated, st.integers(0, 40), st.integers(1, 12), st.integers(1, 9))


def sees(rule: Dilated, query: int, key: int) -> bool:
    return key < rule.sink or key in [query - m * rule.dilation for m in range(rule.neighbors)]
