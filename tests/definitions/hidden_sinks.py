from definitions import Case

PARAMETERS = {"threshold": 0.06, "min_rows": 8}


def define(case: Case) -> dict[str, list[float]]:
    n = len(case.tokens)
    seen = case.attention.visible().expand(1, len(case.pattern), n, n)[0].tolist()
    mass, count = [], []
    for p, sees in zip(case.pattern.tolist(), seen, strict=True):
        columns = []
        for key in range(1, n):
            rows = [i for i in range(n) if sees[i][key]]
            if len(rows) >= 8 and sum(p[i][key] for i in rows) / len(rows) > 0.06:
                columns.append(key)
        mass.append(sum(p[i][key] for key in columns for i in range(n)) / n)
        count.append(float(len(columns)))
    return {"hidden_sinks": mass, "hidden_sink_count": count}
