from hypothesis import strategies as st

from headscope.patterns.selectors import HierarchicalTopK
from rules import Head, Pairs, first_blocks, in_blocks, mean

RULES = st.builds(
    HierarchicalTopK, st.integers(2, 4), st.integers(4, 8), st.integers(0, 6)
) | st.builds(HierarchicalTopK, st.integers(1, 4), st.integers(1, 4), st.just(0))


def chosen(rule: HierarchicalTopK, head: Head) -> Pairs:
    first = first_blocks(rule.sink, rule.block)
    wanted, seen = rule.blocks - 1 - len(first), {}
    for row, queries in head.rows(rule.block).items():
        open_to = [
            j for j in range(len(first), row) if head.reaches(row * rule.block, j, rule.block)
        ]
        seen[row] = set(_search(rule, head, mean(head.q, queries), open_to, row, wanted))
    return in_blocks(head, rule.block, seen, rule.sink)


def _search(rule, head, q, open_to, row, wanted) -> list[int]:
    """From the coarsest cut that is worth a choice, for this row alone."""
    if not open_to or wanted == 0:
        return []
    size = 1
    while -(-row // size) > 2 * wanted:
        size *= 2
    stretches = [range(start, start + size) for start in range(0, row, size)]
    while True:
        scored = []
        for stretch in stretches:
            keys = [
                (head.key[j], j)
                for j in range(len(head.key))
                if head.key[j] >= 0 and head.key[j] // rule.block in stretch
                and head.key[j] // rule.block in open_to
            ]  # fmt: skip
            if keys:
                middle = sorted(keys)[len(keys) // 2][1]
                scored.append((-head.attention.scale * float(q @ head.k[middle]), stretch))
        kept = [stretch for _, stretch in sorted(scored, key=lambda s: s[0])[:wanted]]
        if size == 1:
            return [stretch.start for stretch in kept]
        size //= 2
        stretches = [
            range(start, start + size) for s in kept for start in (s.start, s.start + size)
        ]
