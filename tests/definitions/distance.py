from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    n = len(case.tokens)
    patterns = case.pattern.tolist()

    def mean(p: list[list[float]], longest: int) -> float:
        return sum(p[i][j] * min(i - j, longest) for i in range(n) for j in range(i)) / n

    return {
        "distance": [mean(p, n) for p in patterns],
        "waad": [mean(p, 128) for p in patterns],
    }
