from definitions import Case

OTHERS = [(3, 10), (17, 24), (24, 31)]


def define(case: Case) -> dict[str, list[float]]:
    heads, n = case.pattern.tolist(), len(case.rows)

    def on(low: int, high: int) -> list[float]:
        return [sum(sum(p[i][low:high]) for i in case.rows) / n for p in heads]

    others = [on(*span) for span in OTHERS]
    return {
        "contextual": on(10, 17),
        "contextual_distractors": [sum(masses) / 3 for masses in zip(*others, strict=True)],
        "contextual_sink": on(0, 2),
    }
