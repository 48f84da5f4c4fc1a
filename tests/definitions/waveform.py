import math

from definitions import Case
from definitions.rotation import angles, length, rotates

REACH = 100
PARAMETERS = {"reach": REACH}
FITS = rotates


def define(case: Case) -> dict[str, list]:
    a, thetas = case.attention, angles(case.attention, case.model)
    n = len(case.tokens)
    envelopes = []
    for head in range(a.n_heads):
        q, k = a.q[0, head], a.k[0, head // a.group]
        weights = [
            sum(length(x, t, len(thetas)) for x in q)
            / n
            * sum(length(x, t, len(thetas)) for x in k)
            / n
            for t in range(len(thetas))
        ]
        envelopes.append(
            [
                sum(w * math.cos(m * theta) for w, theta in zip(weights, thetas, strict=True))
                / sum(weights)
                for m in range(REACH + 1)
            ]
        )
    sees = REACH if a.window is None else a.window - 1
    lowest = [min(envelope[1 : sees + 1]) for envelope in envelopes]
    points = [max(p + 1, round(REACH ** (p / 63))) for p in range(64)]
    return {
        "waveform": [1 - low for low in lowest],
        "waveform_trough": [e.index(low, 1) for e, low in zip(envelopes, lowest, strict=True)],
        "waveform_curve": [[envelope[m] for m in points] for envelope in envelopes],
    }
