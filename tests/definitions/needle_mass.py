from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    return {
        "needle_mass": [
            sum(sum(p[i][4:19]) for i in case.rows) / len(case.rows) for p in case.pattern.tolist()
        ]
    }
