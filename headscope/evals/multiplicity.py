"""Many p-values at once: the false discovery rate of a map, the error rate of a list of claims."""

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """q-values: of the tests with q <= 0.05, at most 5 % are false discoveries on average.

    That holds for tests that are independent or depend positively on each other, as those of
    heads on the same prompts mostly do. For maps of heads, where a few false ones do no harm.

    Args:
        p: one for each test, in any order; in [0, 1].

    Returns:
        The smallest false discovery rate at which each test is a discovery, in the same order.

    Raises:
        HeadscopeError: a value is NaN or outside [0, 1].

    Source: Benjamini & Hochberg 1995, "Controlling the false discovery rate: a practical and
    powerful approach to multiple testing".
    """
    p, order = _ordered(p)
    n = len(p)
    # A test is a discovery wherever one with a larger p is.
    adjusted = (p[order] * (n / np.arange(1, n + 1)))[::-1]
    return _unordered(np.minimum.accumulate(adjusted)[::-1], order)


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjusted p-values: the chance of any false claim among those with p <= 0.05 is at most 5 %.

    However the tests depend on each other. For a list of claims, each of which should hold.

    Args:
        p: one for each test, in any order; in [0, 1].

    Returns:
        The smallest error rate of the whole list at which each is rejected, in the same order.

    Raises:
        HeadscopeError: a value is NaN or outside [0, 1].

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p, order = _ordered(p)
    adjusted = p[order] * np.arange(len(p), 0, -1)
    return _unordered(np.maximum.accumulate(adjusted), order)


def _ordered(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise HeadscopeError(
            f"p-values lie between 0 and 1, and {int((~((p >= 0) & (p <= 1))).sum())} of {p.size} "
            "do not; leave out the tests that could not be made."
        )
    return p, np.argsort(p, kind="stable")


def _unordered(adjusted: np.ndarray, order: np.ndarray) -> np.ndarray:
    values = np.empty_like(adjusted)
    values[order] = np.minimum(adjusted, 1)
    return values
