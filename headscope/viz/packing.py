"""Scores with their intervals, small enough for a page that holds 128,000 of them."""

from base64 import b64encode
from typing import Any

import numpy as np

_MOST, _NONE = 65_534, 65_535  # steps of a mean; of one that is not known
_REACH = 255  # steps from a mean to an end of its interval
_LETTERS = 11  # of a head and its rank in JSON; packed, a rank takes 8 / 3


def packed(values: np.ndarray) -> dict[str, Any]:
    """What the page's script takes apart again.

    Args:
        values: [head, (mean, low, high)]; NaN where one is not known.

    Returns:
        mean = low + step * each of `means` (base64 of little-endian uint16, 65535 for NaN), and how
        far the interval's ends are from it, reach * each of `below` and `above` (base64 of uint8).
        Ranks count from 1, the highest mean, and are those of the steps but for `others` (head ->
        rank), means that steps are too coarse to tell apart; where that would be most heads there
        are `ranks` instead (base64 of little-endian uint16, 0 for NaN).
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
        **_told(_ranks(mean, known), _ranks(means, known)),
    }


def _told(ranks: np.ndarray, of_steps: np.ndarray) -> dict[str, Any]:
    """Ranks in the fewest letters."""
    others = np.flatnonzero(ranks != of_steps)
    if len(others) * _LETTERS < len(ranks) * 8 / 3:
        return {"others": {int(i): int(ranks[i]) for i in others}}
    return {"ranks": _text(ranks)}


def _ranks(mean: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[head]: one more than how many have a higher mean; equal ones share a rank."""
    upwards = np.sort(mean[known])
    above = len(upwards) - np.searchsorted(upwards, mean, side="right")
    return np.where(known, above + 1, 0).astype("<u2")


def _text(numbers: np.ndarray) -> str:
    return b64encode(numbers.tobytes()).decode()
