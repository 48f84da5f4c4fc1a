"""Intervals and p-values for small paired experiments."""

from math import ceil, log2, sqrt
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.evals.bootstrap import (
    RESAMPLES,
    Interval,
    finite,
    paired_bootstrap,
    tail,
    two_sample_bootstrap,
)
from headscope.evals.multiplicity import benjamini_hochberg, holm
from headscope.evals.two_way import two_way_bootstrap

__all__ = [
    "RESAMPLES",
    "Interval",
    "benjamini_hochberg",
    "check_enough",
    "empirical_p",
    "holm",
    "least_prompts",
    "paired_bootstrap",
    "paired_proportions",
    "sign_flip_p",
    "two_sample_bootstrap",
    "two_way_bootstrap",
    "wilson",
]
_FLIPS = 14  # 2 ** 14 signs are all tried; of more prompts some are drawn


def least_prompts(confidence: float = 0.95) -> int:
    """The fewest prompts of which an interval can honestly be asked: 2 · (1/2)^n <= 1 - confidence.

    Of fewer, all differences have the same sign by chance too often: a sign test cannot reach the
    p that such an interval claims, and no method that knows nothing else of the differences can.

    Raises:
        HeadscopeError: the confidence is not between 0 and 1.

    Source: Dixon & Mood 1946, "The statistical sign test".
    """
    return ceil(-log2(tail(confidence)) - 1e-9)  # the fraction is rounding


def check_enough(n: int, confidence: float = 0.95) -> None:
    """Refuse an experiment with too few prompts for an interval, before it is run.

    Raises:
        HeadscopeError: there are fewer than `least_prompts`.
    """
    least = least_prompts(confidence)
    if n < least:
        there = "there is 1" if n == 1 else f"there are {n}"
        raise HeadscopeError(
            f"A {100 * confidence:g} % interval needs at least {least} prompts, and {there}; "
            "give more samples."
        )


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion that stays inside [0, 1].

    Raises:
        HeadscopeError: n is 0, or the confidence is not between 0 and 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1:
        raise HeadscopeError("A proportion of nothing has no interval.")
    z = _z(confidence)
    p, total = successes / n, 1 + z * z / n
    middle = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / total), min(1.0, (middle + half) / total)


def paired_proportions(
    differences: Float[np.ndarray, " prompt"], confidence: float = 0.95
) -> Interval:
    """Interval of a change in exact match on the same prompts, which has a width even at no change.

    A Wald interval with one made-up prompt added for each direction of change. At 95 % and from
    12 prompts on it covers 91.6 % or more whatever the truth, and nearly always where changes are
    rare; where nothing changed, the interval of 24 prompts is [-0.11, 0.11].

    Args:
        differences: exact match after less before, for each prompt: -1, 0 or 1.

    Returns:
        (low, high), a difference of proportions within [-1, 1].

    Raises:
        HeadscopeError: there are no differences, or other values among them.

    Source: Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data".
    """
    differences = finite(differences)
    if not np.isin(differences, (-1, 0, 1)).all():
        raise HeadscopeError(
            "Differences of exact matches are -1, 0 or 1; use paired_bootstrap for others."
        )
    n = len(differences) + 2
    up, down = (float((differences == sign).sum() + 1) / n for sign in (1, -1))
    half = _z(confidence) * sqrt((up + down - (up - down) ** 2) / n)
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def empirical_p(tested: float, controls: Float[np.ndarray, " control"]) -> float:
    """How often a control does at least as much: (1 + #{control >= tested}) / (1 + controls).

    Source: Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    return (1 + int((controls >= tested).sum())) / (1 + len(controls))


def sign_flip_p(differences: Float[np.ndarray, " prompt"], seed: int = 0) -> float:
    """p of a mean difference against none at all, two-sided, by flipping signs.

    If a change did nothing, each difference would as well have had the other sign: p is how often
    flipped differences have a mean at least as far from 0. Up to 14 prompts all flips are tried,
    and p is exact; of more, 10 000 are drawn and the observed signs count as one of them. The
    smallest p of n prompts is 2 · (1/2)^n.

    Args:
        differences: one for each prompt, in any unit.
        seed: of the flips that are drawn.

    Raises:
        HeadscopeError: there are no differences, or not all are finite.

    Source: Fisher 1935, "The Design of Experiments", section 21; the observed one counted:
    Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    differences = finite(differences)
    n = len(differences)
    if n <= _FLIPS:
        # Half of all: each has a mirror image that is as far from 0.
        flips = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    else:
        flips = np.random.default_rng(seed).integers(2, size=(RESAMPLES, n), dtype=np.int8)
    sums = np.abs(differences.sum() - 2 * (flips @ differences))
    # Flips that give the same sum in another order must not differ by rounding.
    least = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    as_far = int((sums >= least).sum())
    return as_far / len(sums) if n <= _FLIPS else (1 + as_far) / (1 + len(sums))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(1 - tail(confidence))
