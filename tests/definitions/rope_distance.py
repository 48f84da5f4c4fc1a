import math

from scipy.stats import spearmanr

from definitions import Case
from definitions.rotation import angles, product, rotates

PARAMETERS = {"nearest": 1, "runs": 2}
FITS = rotates


def define(case: Case) -> dict[str, list]:
    a, thetas = case.attention, angles(case.attention, case.model)
    n = len(case.tokens)
    half = (n // 2 + n) // 2
    rows = [*range(half - 8, half), *range(n - 8, n)]
    low = [t for t, theta in enumerate(thetas) if 2 * math.pi / theta > n]
    scores, far = [], []
    for head, p in enumerate(case.pattern.tolist()):
        q, k = a.q[0, head].double(), a.k[0, head // a.group].double()
        shares, starts = [], []
        for start in (2**x for x in range(6)):
            pairs = [(i, j) for i in rows for j in range(i) if start <= i - j < 2 * start]
            mass = sum(p[i][j] for i, j in pairs)
            if mass < 1e-4 * len(rows):
                continue
            size = [
                abs(sum(p[i][j] * product(q[i], k[j], t, len(thetas)) for i, j in pairs) / mass)
                for t in range(len(thetas))
            ]
            shares.append(sum(size[t] for t in low) / sum(size))
            starts.append(start)
        trivial = len(shares) < 3 or len(set(shares)) == 1
        scores.append(0.0 if trivial else spearmanr(starts, shares)[0])
        far.append(sum(p[i][j] for i in rows for j in range(i) if i - j >= n / 8) / len(rows))
    return {"rope_distance": scores, "rope_far": far}
