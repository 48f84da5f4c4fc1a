from hypothesis import strategies as st

from headscope.patterns.selectors import VerticalSlash
from rules import Head, Pairs, highest


@st.composite
def _rules(draw: st.DrawFn) -> VerticalSlash:
    sink, window = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    vertical, slash = sink + draw(st.integers(0, 9)), window + draw(st.integers(0, 3))
    return VerticalSlash(
        vertical, slash, draw(st.integers(1, 12)), sink, window, draw(st.integers(1, 6))
    )


RULES = _rules()


def chosen(rule: VerticalSlash, head: Head) -> Pairs:
    late = head.late(rule.last_q)
    if not late:
        return lambda i, j: False
    last, inf = head.query[late[-1]], float("inf")
    columns = {
        j: inf if key < rule.sink else sum(float(head.pattern[i, j]) for i in late)
        for j, key in enumerate(head.key)
        if 0 <= key <= last
    }
    diagonals = {d: inf if d < rule.window else 0.0 for d in range(last + 1)}
    for i in late:
        for j, key in enumerate(head.key):
            if 0 <= key <= head.query[i]:
                diagonals[head.query[i] - key] += float(head.pattern[i, j])
    vertical, slash = highest(columns, rule.vertical), highest(diagonals, rule.slash)
    return lambda i, j: j in vertical or crosses(head.query[i], head.key[j], slash, rule.block)


def crosses(query: int, key: int, distances: set[int], block: int) -> bool:
    """Whether a diagonal runs through the square of blocks that a pair is in."""
    row, column = query // block, key // block
    rows = range(row * block, (row + 1) * block)
    return any((at - d) // block == column for at in rows for d in distances)
