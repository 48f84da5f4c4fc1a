from definitions import Case

MOST, SAMPLED = 16, 11
PARAMETERS = {"most": MOST, "sampled": SAMPLED}


def define(case: Case) -> dict[str, list]:
    room = len(case.tokens) - MOST
    rows = [MOST + x * room // SAMPLED for x in range(SAMPLED)]
    curves = [
        [sum(p[i][i - back] for i in rows) / SAMPLED for back in range(1, MOST + 1)]
        for p in case.pattern.tolist()
    ]
    return {
        "offset": [max(curve) for curve in curves],
        "offset_best": [1 + curve.index(max(curve)) for curve in curves],
        "offset_curve": curves,
    }
