from hypothesis import strategies as st
from torch import Tensor

from headscope.patterns.selectors import SelfSimilarity
from rules import Head, Pairs, fewest, in_blocks, mean, softmax

RULES = st.builds(
    SelfSimilarity, st.sampled_from([0.2, 0.6, 0.93]), st.sampled_from([-1.0, 0.22, 0.37, 0.71]),
    st.integers(0, 5), st.integers(1, 5),
)  # fmt: skip


def chosen(rule: SelfSimilarity, head: Head) -> Pairs:
    keys, seen = head.columns(rule.block), {}
    alike = {j for j, index in keys.items() if _similarity(head.k, index) > rule.theta}
    for row, queries in head.rows(rule.block).items():
        columns = head.candidates(row, rule.block)
        if _similarity(head.q, queries) <= rule.theta:
            seen[row] = set(columns)
            continue
        q = mean(head.q, queries)
        logits = {j: head.logit(q, mean(head.k, keys[j])) for j in columns if j in alike}
        seen[row] = fewest(softmax(logits), rule.tau) | (set(columns) - alike)
    return in_blocks(head, rule.block, seen, rule.sink)


def _similarity(x: Tensor, index: list[int]) -> float:
    """Mean cosine over all pairs of a block."""
    cosines = [float(x[i] @ x[j] / (x[i].norm() * x[j].norm())) for i in index for j in index]
    return sum(cosines) / len(cosines)
