from math import log

from definitions import Case


def define(case: Case) -> dict[str, list[float]]:
    a, n = case.attention, len(case.tokens)
    window = a.window or n
    learned = a.sink_logits is not None
    shares, nats = [], []
    for p in case.pattern.tolist():
        each = []
        for i in range(1, n):
            outcomes = [p[i][j] for j in range(i + 1) if i - j < window]
            if learned:
                outcomes.append(1 - sum(outcomes))
            each.append((-sum(x * log(x) for x in outcomes if x > 0), len(outcomes)))
        nats.append(sum(h for h, _ in each) / (n - 1))
        shares.append(sum(h / log(m) for h, m in each) / (n - 1))
    return {"entropy": shares, "entropy_nats": nats}
