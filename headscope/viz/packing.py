"""Scores with their intervals, small enough for a page that holds 128,000 of them."""

from base64 import b64encode

import numpy as np

_MOST, _NONE = 65_534, 65_535  # steps of a mean; of one that is not known
_REACH = 255  # steps from a mean to an end of its interval


def packed(values: np.ndarray) -> dict[str, float | str]:
    """What the page's script takes apart again.

    Args:
        values: [head, (mean, low, high)]; NaN where one is not known.

    Returns:
        mean = low + step * each of `means` (base64 of little-endian uint16, 65535 for NaN), and how
        far the interval's ends are from it, reach * each of `below` and `above` (base64 of uint8).
        `ranks` (base64 of little-endian uint16, 0 for NaN) count from 1, the highest mean: steps
        are too coarse to tell near ones apart.
    """
    mean, low, high = values.T
    known = np.isfinite(mean)
    start = float(mean[known].min()) if known.any() else 0.0
    step = float(np.ptp(mean[known])) / _MOST if known.any() else 0.0
    away = np.nan_to_num(np.stack([mean - low, high - mean])).clip(0)
    reach = float(away.max(initial=0.0)) / _REACH
    steps = np.divide(mean - start, step, out=np.zeros_like(mean), where=known & (step > 0))
    means = np.where(known, steps.round(), _NONE).astype("<u2")
    below, above = np.divide(away, reach, out=np.zeros_like(away), where=reach > 0).round()
    return {
        "low": start,
        "step": step,
        "reach": reach,
        "means": _text(means),
        "below": _text(below.astype(np.uint8)),
        "above": _text(above.astype(np.uint8)),
        "ranks": _text(_ranks(mean, known)),
    }


def _ranks(mean: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[head]: one more than how many have a higher mean; equal ones share a rank."""
    upwards = np.sort(mean[known])
    above = len(upwards) - np.searchsorted(upwards, mean, side="right")
    return np.where(known, above + 1, 0).astype("<u2")


def _text(numbers: np.ndarray) -> str:
    return b64encode(numbers.tobytes()).decode()
