from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    tokens, n = case.tokens, len(case.tokens)
    copies = {i: [j for j in range(i) if tokens[j] == tokens[i]] for i in range(n)}
    have = [i for i in range(n) if copies[i]]
    return {
        "induction": [
            sum(p[i][j + 1] for i in have for j in copies[i]) / len(have)
            for p in case.pattern.tolist()
        ]
    }
