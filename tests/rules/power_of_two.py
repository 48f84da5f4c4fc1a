from hypothesis import strategies as st

from headscope.patterns import PowerOfTwo

RULES = st.builds(PowerOfTwo, st.integers(0, 40), st.integers(1, 9), st.integers(1, 9))


def sees(rule: PowerOfTwo, query: int, key: int) -> bool:
    back = query // rule.block - key // rule.block
    power = back in [2**m for m in range(40)]
    return key < rule.sink or query - key < rule.window or power
