from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    found = []
    for p in case.pattern.tolist():
        hits = set()
        for i in case.rows:
            top = max(range(len(case.tokens)), key=lambda j, row=p[i]: row[j])
            if 7 <= top < 15 and case.tokens[top] == case.tokens[i + 1]:
                hits.add(top)
        found.append(len(hits) / 8)
    return {"retrieval": found}
