from organisms import SINKS, WINDOW

from definitions import Case
from headscope.patterns import Streaming

PARAMETERS = {"pattern": Streaming(SINKS, WINDOW)}


def define(case: Case) -> dict[str, list[float]]:
    late = range(SINKS + WINDOW, len(case.tokens))
    inside = [
        [sum(p[i][j] for j in range(i + 1) if j < SINKS or i - j < WINDOW) for i in late]
        for p in case.pattern.tolist()
    ]
    return {"streaming": [sum(rows) / len(rows) for rows in inside]}
