from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    first = [[row[0] for row in p] for p in case.pattern.tolist()]
    mean = [sum(column) / len(column) for column in first]
    return {"sink": mean, "sink_rate": [float(x > 0.3) for x in mean]}
