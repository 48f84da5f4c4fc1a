from math import log

import numpy as np
import oracle

from definitions import Case

SINKS, LOCAL, TAU = 3, 5, 0.6
PARAMETERS = {"sinks": SINKS, "local": LOCAL, "tau": TAU}


def define(case: Case) -> dict[str, list[float]]:
    a, n = case.attention, len(case.tokens)
    names = "qada qada_estimated qada_false_negative qada_false_positive qada_correlation".split()
    found: dict[str, list[float]] = {name: [] for name in names}
    lse = oracle.dense(a).lse[0].tolist()
    seen = oracle.visible(a)[0].tolist()
    for head, p in enumerate(case.pattern.tolist()):
        q = a.q[0, head].double().numpy() * a.scale
        k = a.k[0, head // a.group].double().numpy()
        rows = []
        for i in range(n):
            bulk = [j for j in range(SINKS, i - LOCAL + 1) if seen[head][i][j]]
            if bulk:
                exact = sum(p[i][j] for j in bulk)
                mean, covariance = k[bulk].mean(0), np.cov(k[bulk].T, bias=True)
                score = q[i] @ mean + q[i] @ covariance @ q[i] / 2
                estimate = log(len(bulk)) + score - lse[head][i]
                # In logarithms: an estimate may be beyond every float.
                long = 1 - exact < TAU
                called = estimate > log((1 - exact) * (1 / TAU - 1))
                logs = log(max(exact, 1e-30)) + lse[head][i], estimate + lse[head][i]
                rows.append((long, called, *logs))
        for name, value in zip(names, _scores(rows), strict=True):
            found[name].append(value)
    return found


def _scores(rows: list[tuple[bool, bool, float, float]]) -> list[float]:
    if not rows:
        return [0.0] * 5
    long = [called for is_long, called, *_ in rows if is_long]
    local = [called for is_long, called, *_ in rows if not is_long]
    exact, estimated = ([row[x] for row in rows] for x in (2, 3))
    return [
        len(long) / len(rows),
        (sum(long) + sum(local)) / len(rows),
        sum(not called for called in long) / len(long) if long else 0.0,
        sum(local) / len(local) if local else 0.0,
        float(np.corrcoef(exact, estimated)[0, 1]),
    ]
