"""Parameters of samples, paired evenly."""

import random
from collections.abc import Sequence
from itertools import product
from typing import Any


def paired(rng: random.Random, index: int, *choices: Sequence[Any]) -> tuple[Any, ...]:
    """One of each of the choices for a sample.

    All combinations come in one shuffled order, over and over, so that as many samples as there
    are combinations hold each once.

    Args:
        rng: a generator that is the same for every sample.
        index: the sample.
    """
    cells = list(product(*choices))
    rng.shuffle(cells)
    return cells[index % len(cells)]
