from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    n = len(case.tokens)
    return {
        "previous_token": [
            sum(p[i][i - 1] for i in range(1, n)) / (n - 1) for p in case.pattern.tolist()
        ]
    }
