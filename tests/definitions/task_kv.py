import math

from definitions import Case

PARAMETERS = {"window": 6, "top": 7}


def define(case: Case) -> dict[str, list[float]]:
    values = case.attention.v[0].tolist()
    group = case.attention.group
    rows = range(len(case.reading.prompt) - 6, len(case.reading.prompt))
    read = []
    for head, p in enumerate(case.pattern.tolist()):
        received = [sum(p[i][j] for i in rows) / 6 for j in range(len(case.tokens))]
        top = sorted(range(len(received)), key=lambda j: -received[j])[:7]
        v = values[head // group]
        read.append([sum(received[j] * v[j][d] for j in top) for d in range(len(v[0]))])
    centre = [sum(column) / len(read) for column in zip(*read, strict=True)]
    raw = [math.dist(vector, centre) for vector in read]
    mean = sum(raw) / len(raw)
    return {"task_kv": [x / mean for x in raw], "task_kv_raw": raw}
