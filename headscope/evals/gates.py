"""What too few, too easy or too hard questions cannot say."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from headscope.evals.bootstrap import paired_bootstrap
from headscope.evals.statistics import Interval, least_prompts, wilson

# Declared beforehand: shares of right answers beyond which no claim rests on them.
FLOOR, CEILING = 0.3, 0.98


def gate(right: Bool[np.ndarray, " question"], chance: float) -> Literal["", "floor", "ceiling"]:
    """Whether right answers have room to become fewer and more.

    "floor": fewer than 30 % are right, or of a choice, no more than guessing could give (its Wilson
    interval holds the share that a guess has). "ceiling": more than 98 % are. Claims then rest on
    log-probabilities alone.
    """
    share = float(right.mean())
    if share > CEILING:
        return "ceiling"
    low = wilson(int(right.sum()), len(right))[0] if chance else share
    return "floor" if low <= chance or (not chance and share < FLOOR) else ""


def mean_interval(values: Float[np.ndarray, " question"], seed: int = 0) -> Interval:
    """Interval of a mean over questions; NaN where there are too few for any."""
    if len(values) < least_prompts(0.95):
        return float("nan"), float("nan")
    return paired_bootstrap(values, seed)
