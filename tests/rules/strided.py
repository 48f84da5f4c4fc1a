from hypothesis import strategies as st

from headscope.patterns import Strided

RULES = st.builds(Strided, st.integers(0, 40), st.integers(1, 9), st.integers(1, 40))


def sees(rule: Strided, query: int, key: int) -> bool:
    grid = range(query, -1, -rule.stride)
    return (
        key in range(rule.sink) or key in grid or key in range(query - rule.window + 1, query + 1)
    )
