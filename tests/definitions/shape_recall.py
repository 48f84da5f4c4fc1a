from definitions import Case

SINK, WINDOW, VERTICAL, SLASH, ALWAYS, BLOCK, BLOCKS, SAMPLED, LAST = 2, 4, 4, 3, 1, 4, 2, 9, 10
PARAMETERS = {
    "sink": SINK, "window": WINDOW, "vertical": VERTICAL, "slash": SLASH, "always": ALWAYS,
    "block": BLOCK, "blocks": BLOCKS, "sampled": SAMPLED, "last": LAST,
}  # fmt: skip


def define(case: Case) -> dict[str, list[float]]:
    a, n = case.attention, len(case.tokens)
    rows = [n // 2 + r * (n - n // 2) // SAMPLED for r in range(SAMPLED)]
    late, keys = range(n - LAST, n), range(n)
    out: dict[str, list[float]] = {
        name: [] for name in ("shape_recall", "shape_a", "shape_vertical_slash", "shape_block")
    }
    for head, p in enumerate(case.pattern.tolist()):

        def mean(rule, p=p):
            return sum(p[i][j] for i in rows for j in range(i + 1) if rule(i, j)) / SAMPLED

        column = [sum(p[i][j] for i in late) for j in keys]
        diagonal = [sum(p[i][i - d] for i in late if i >= d) for d in keys]
        columns, diagonals = best(column, VERTICAL), best(diagonal, SLASH)
        q, k = means(a.q[0, head].double()), means(a.k[0, head // a.group].double())
        blocks = [
            sorted(range(b + 1), key=lambda c, b=b: -float(q[b] @ k[c]))[:BLOCKS]
            for b in range(len(q))
        ]
        recalls = [
            mean(lambda i, j: j < SINK or i - j < WINDOW),
            mean(lambda i, j, c=columns, d=diagonals: j in c or i - j in d),
            mean(lambda i, j, of=blocks: j // BLOCK in of[i // BLOCK]),
        ]
        for name, value in zip(out, [max(recalls), *recalls], strict=True):
            out[name].append(value)
    return out


def best(votes: list[float], count: int) -> set[int]:
    """The first `ALWAYS` places and those with most votes, `count` in all."""
    return {*sorted(range(len(votes)), key=lambda j: (j >= ALWAYS, -votes[j]))[:count]}


def means(x):
    return [x[start : start + BLOCK].mean(0) for start in range(0, len(x), BLOCK)]
