from hypothesis import strategies as st

from headscope.patterns.selectors import BlockTopK
from rules import Head, Pairs, first_blocks, highest, in_blocks, mean

RULES = st.builds(BlockTopK, st.integers(3, 6), st.integers(4, 8), st.integers(0, 9)) | st.builds(
    BlockTopK, st.integers(1, 9), st.integers(1, 4), st.just(0)
)


def chosen(rule: BlockTopK, head: Head) -> Pairs:
    first = first_blocks(rule.sink, rule.block)
    keys, seen = head.columns(rule.block), {}
    for row, queries in head.rows(rule.block).items():
        q = mean(head.q, queries)
        others = [j for j in head.candidates(row, rule.block) if j != row and j not in first]
        scores = {j: float(q @ mean(head.k, keys[j])) for j in others}
        seen[row] = highest(scores, rule.blocks - 1 - len(first))
    return in_blocks(head, rule.block, seen, rule.sink)
