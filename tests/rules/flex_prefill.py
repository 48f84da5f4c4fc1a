import math

from hypothesis import strategies as st

from headscope.patterns.selectors import FlexPrefill
from rules import Head, Pairs, fewest, in_blocks, mean, softmax
from rules.vertical_slash import crosses

RULES = st.builds(
    FlexPrefill, st.sampled_from([0.3, 0.77, 0.95]), st.sampled_from([0.0, 0.1, 0.3, 0.9]),
    st.integers(0, 5), st.integers(1, 6),
)  # fmt: skip


def chosen(rule: FlexPrefill, head: Head) -> Pairs:
    block, late = rule.block, head.late(rule.block)
    if not late:
        return lambda i, j: False
    keys = head.columns(block)
    q = mean(head.q, late)
    foretold = softmax(
        {j: head.logit(q, mean(head.k, keys[j])) for j in head.late_candidates(late, block)}
    )
    if _distance(foretold, head.by_block(late, block), sorted(keys)) < rule.tau:
        return in_blocks(head, block, _by_means(rule, head), rule.sink)
    columns = {j: sum(float(head.pattern[i, j]) for i in late) for j in range(len(head.key))}
    diagonals: dict[int, float] = {}
    for i in late:
        for j, key in enumerate(head.key):
            if 0 <= key <= head.query[i]:
                distance = head.query[i] - key
                diagonals[distance] = diagonals.get(distance, 0.0) + float(head.pattern[i, j])
    vertical, slash = fewest(columns, rule.gamma), fewest(diagonals, rule.gamma)
    always = in_blocks(head, block, {}, rule.sink)
    return lambda i, j: (
        always(i, j) or j in vertical or crosses(head.query[i], head.key[j], slash, block)
    )


def _by_means(rule: FlexPrefill, head: Head) -> dict[int, set[int]]:
    keys, weights = head.columns(rule.block), {}
    for row, queries in head.rows(rule.block).items():
        q = mean(head.q, queries)
        columns = head.candidates(row, rule.block)
        shares = softmax({j: head.logit(q, mean(head.k, keys[j])) for j in columns})
        weights |= {(row, j): share for j, share in shares.items()}
    found = fewest(weights, rule.gamma)
    return {row: {j for at, j in found if at == row} for row in head.rows(rule.block)}


def _distance(p: dict[int, float], q: dict[int, float], columns: list[int]) -> float:
    def divergence(x: dict[int, float], m: dict[int, float]) -> float:
        return sum(v * math.log(v / m[j]) for j, v in x.items() if v > 0)

    middle = {j: (p.get(j, 0.0) + q.get(j, 0.0)) / 2 for j in columns}
    return math.sqrt(max((divergence(p, middle) + divergence(q, middle)) / 2, 0))
