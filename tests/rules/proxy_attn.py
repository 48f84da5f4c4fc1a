import math

from hypothesis import strategies as st

from headscope.patterns.selectors import ProxyAttn
from rules import Head, Pairs, fewest, highest, in_blocks

RULES = st.builds(
    ProxyAttn, st.sampled_from([0.3, 0.77, 0.95]), st.integers(0, 5), st.integers(1, 5)
)


def chosen(rule: ProxyAttn, head: Head) -> Pairs:
    block, late, seen = rule.block, head.late(rule.block), {}
    if not late:
        return lambda i, j: False
    keys = head.columns(block)
    needed = len(fewest(head.by_block(late, block), rule.gamma))
    out_of = len(head.late_candidates(late, block))
    for row, queries in head.rows(block).items():
        columns = head.candidates(row, block)
        scores = {
            j: max(float(head.group_pattern[i, key]) for i in queries for key in keys[j])
            for j in columns
        }
        seen[row] = highest(scores, math.ceil(needed * len(columns) / max(out_of, 1)))
    return in_blocks(head, block, seen, rule.sink)
