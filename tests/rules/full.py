from hypothesis import strategies as st

from headscope.patterns import Full

RULES = st.just(Full())


def sees(rule: Full, query: int, key: int) -> bool:
    return True
