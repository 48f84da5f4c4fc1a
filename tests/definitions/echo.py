from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    return {"echo": on_latest(case, 0)}


def on_latest(case: Case, after: int) -> list[float]:
    """Mean attention on the place `after` behind the last earlier place of the same token."""
    tokens, latest = case.tokens, {}
    for i, token in enumerate(tokens):
        before = [j for j in range(i) if tokens[j] == token]
        if before:
            latest[i] = before[-1]
    return [
        sum(p[i][j + after] for i, j in latest.items()) / len(latest) for p in case.pattern.tolist()
    ]
