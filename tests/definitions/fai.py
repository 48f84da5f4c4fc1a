from definitions import Case

LO, HI = 3, 9
PARAMETERS = {"lo": LO, "hi": HI}


def define(case: Case) -> dict[str, list[float]]:
    n = len(case.tokens)
    tokens = [s for s in range(n) if s + HI < n]
    found = []
    for p in case.pattern.tolist():
        each = [sum(p[t][s] for t in range(s + LO, s + HI + 1)) / (HI - LO + 1) for s in tokens]
        found.append(sum(each) / len(each))
    return {"fai": found}
