from hypothesis import strategies as st

from headscope.patterns import Sharded

RULES = st.integers(1, 5).flatmap(
    lambda stride: st.builds(
        Sharded, st.integers(0, 9), st.integers(1, 9), st.integers(1, 7), st.just(stride),
        st.integers(0, stride - 1),
    )
)  # fmt: skip


def sees(rule: Sharded, query: int, key: int) -> bool:
    starts = range(rule.offset * rule.block, query + 1, rule.stride * rule.block)
    shard = any(start <= key < start + rule.block for start in starts)
    return key < rule.sink or key > query - rule.window or shard
