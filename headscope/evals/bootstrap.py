"""Bootstrap intervals of a mean over prompts, and of the difference of two."""

from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError

Interval = tuple[float, float]
RESAMPLES = 10_000


def paired_bootstrap(
    differences: Float[np.ndarray, " prompt"],
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a mean difference over prompts: the smoothed bootstrap-t.

    A resample gives t = (its mean - the mean) / its standard error; the interval holds the values
    that lie no more standard errors from the mean than the quantiles of t allow. The percentile
    bootstrap covers too seldom below about 50 prompts, and so do the expanded percentile and BCa
    where differences are skewed: quantiles of t know the skew and how uncertain the spread is
    (benchmarks/results/coverage.txt has them side by side). Every draw has normal noise of the
    variance s²/n: resamples then vary as much as samples do, and one that drew the same value n
    times, which is common among 0/1 differences, still has a standard error.

    For exact matches use `paired_proportions`: where all differences are equal there is nothing
    to resample, and this interval is a single point. Of differences with heavy tails on both sides
    it covers less than it says: about 92 % for Student's t with 3 degrees of freedom.

    Args:
        differences: one for each prompt, in any unit; prompts are independent of each other.
        seed: of the resamples.
        confidence: how often such intervals should hold the true mean.
        resamples: how many.

    Returns:
        (low, high) in the unit of the differences; (nan, nan) for a single prompt.
        `check_enough` says how many prompts an interval deserves.

    Raises:
        HeadscopeError: there are no differences, or not all are finite.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 12.5; Hesterberg
    2015, "What teachers should know about the bootstrap"; the noise: Hesterberg 2004, "Unbiasing
    the bootstrap - bootknife sampling vs. smoothing".
    """
    sample, edge = finite(differences), tail(confidence)
    if len(sample) < 2:
        return nan, nan
    return _resampled(sample, np.random.default_rng(seed), resamples).interval(edge)


def two_sample_bootstrap(
    a: Float[np.ndarray, " prompt_a"],
    b: Float[np.ndarray, " prompt_b"],
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of mean(a) - mean(b) for two samples of prompts that have none in common.

    Of the effects of one ablation on two tasks this is the interaction: whether the heads matter
    more to the first. Each sample is resampled by itself as in `paired_bootstrap`, and t has
    Welch's standard error, so that sizes and spreads may differ.

    Args:
        a, b: one value for each prompt, in the same unit.
        seed, confidence, resamples: as in `paired_bootstrap`.

    Returns:
        (low, high) in that unit; (nan, nan) if one of them has a single prompt.

    Raises:
        HeadscopeError: a sample is empty, or not all values are finite.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 12; Welch
    1947, "The generalization of 'Student's' problem when several different population variances
    are involved".
    """
    first, second, edge = finite(a), finite(b), tail(confidence)
    if min(len(first), len(second)) < 2:
        return nan, nan
    rng = np.random.default_rng(seed)
    one, other = _resampled(first, rng, resamples), _resampled(second, rng, resamples)
    return Resampled(
        one.mean - other.mean,
        one.error + other.error,
        one.deviations - other.deviations,
        one.errors + other.errors,
    ).interval(edge)


@dataclass(frozen=True, eq=False)
class Resampled:
    """An estimate, and what became of it in resamples.

    Attributes:
        mean: the estimate.
        error: its squared standard error.
        deviations: what each resample gives, less the estimate.
        errors: the squared standard error within each resample.
    """

    mean: float
    error: float
    deviations: Float[np.ndarray, " resample"]
    errors: Float[np.ndarray, " resample"]

    def interval(self, edge: float) -> Interval:
        """Bootstrap-t with so much probability outside at either end."""
        if self.error == 0:
            return self.mean, self.mean
        t = self.deviations / np.sqrt(self.errors)
        low, high = np.quantile(t, [edge, 1 - edge]) * sqrt(self.error)
        return float(self.mean - high), float(self.mean - low)


def _resampled(
    sample: Float[np.ndarray, " prompt"], rng: np.random.Generator, resamples: int
) -> Resampled:
    n = len(sample)
    # The mean of equal numbers may differ from them in its last bit.
    mean = float(sample[0] if np.ptp(sample) == 0 else sample.mean())
    centred = sample - mean
    error = float(centred @ centred) / (n * (n - 1))
    drawn = centred[rng.integers(n, size=(resamples, n))]
    means = drawn.mean(1)
    squares = ((drawn - means[:, None]) ** 2).sum(1)
    return Resampled(mean, error, *smoothed(means, squares, error, n, rng))


def smoothed(
    means: Float[np.ndarray, " resample"],
    squares: Float[np.ndarray, " resample"],
    error: float,
    n: int,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " resample"], Float[np.ndarray, " resample"]]:
    """Means and squared standard errors, had each of the n draws normal noise added to it.

    The noise is not drawn: its part along the mean, its part along the deviations and the square
    of all the rest are independent, and nothing else of it matters.

    Args:
        squares: sums of squared deviations from the mean.
        error: the variance of the noise.
    """
    noise = sqrt(error)
    along_mean, along = rng.standard_normal((2, len(means)))
    rest = 2 * rng.standard_gamma((n - 2) / 2, len(means))
    squares = (np.sqrt(squares) + noise * along) ** 2 + error * rest
    return means + noise * along_mean / sqrt(n), squares / (n * (n - 1))


def finite(values: Any) -> np.ndarray:
    """Values as double precision; none at all, and those that are no numbers, are refused."""
    values = np.asarray(values, np.float64)
    if not values.size:
        raise HeadscopeError("A mean of nothing has no interval; give at least two prompts.")
    if not np.isfinite(values).all():
        raise HeadscopeError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite, so that "
            "their mean has no interval; leave those prompts out."
        )
    return values


def tail(confidence: float) -> float:
    """The probability outside an interval at either end.

    Raises:
        HeadscopeError: the confidence is none.
    """
    if not 0 < confidence < 1:
        raise HeadscopeError(f"A confidence lies between 0 and 1, as 0.95 does; not {confidence}.")
    return (1 - confidence) / 2
