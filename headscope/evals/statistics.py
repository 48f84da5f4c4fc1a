"""Intervals and p-values for small paired experiments."""

from math import sqrt
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError

Interval = tuple[float, float]
RESAMPLES = 10_000


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion that stays inside [0, 1].

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1:
        raise HeadscopeError("A proportion of nothing has no interval.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, total = successes / n, 1 + z * z / n
    middle = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / total), min(1.0, (middle + half) / total)


def paired_bootstrap(
    differences: Float[np.ndarray, " prompt"], seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap of a mean difference over prompts.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    n = len(differences)
    if n < 1:
        raise HeadscopeError("A mean of nothing has no interval.")
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    means = counts @ differences.astype(np.float64) / n
    edge = (1 - confidence) / 2
    low, high = np.quantile(means, [edge, 1 - edge])
    return float(low), float(high)


def empirical_p(tested: float, controls: Float[np.ndarray, " control"]) -> float:
    """How often a control does at least as much: (1 + #{control >= tested}) / (1 + controls).

    Source: Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    return (1 + int((controls >= tested).sum())) / (1 + len(controls))
