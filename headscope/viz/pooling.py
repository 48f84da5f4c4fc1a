"""Patterns of long texts, made small enough to be drawn and sent: maxima of squares of tokens."""

import numpy as np

from headscope.errors import HeadscopeError

MOST = 512  # squares on a side


def square(n: int, most: int = MOST) -> int:
    """Tokens on a side of the smallest squares of which at most so many stand in a row."""
    return max(1, -(-n // most))


def max_pool(weights: np.ndarray, size: int) -> np.ndarray:
    """The largest value of every square of `size` × `size`, those at the edges being smaller.

    The largest, because a mean hides a single stripe. NaN counts for nothing beside a number.

    Args:
        weights: [query, key].

    Returns:
        [square, square].
    """
    if size == 1:
        return weights
    rows, columns = (-(-n // size) * size for n in weights.shape)
    padded = np.full((rows, columns), -np.inf, weights.dtype)
    padded[: weights.shape[0], : weights.shape[1]] = np.where(np.isnan(weights), -np.inf, weights)
    found = padded.reshape(rows // size, size, columns // size, size).max((1, 3))
    return np.where(np.isneginf(found), np.nan, found)


def quantised(weights: np.ndarray) -> np.ndarray:
    """Weights as uint8, by their square root so that faint ones are kept apart; NaN is 0."""
    known = np.nan_to_num(np.asarray(weights, np.float64), nan=0.0)
    return np.round(255 * np.sqrt(np.clip(known, 0, 1))).astype(np.uint8)


def restored(shades: np.ndarray) -> np.ndarray:
    """The weights of `quantised`, to 1/255 of their square root."""
    return (shades / 255.0) ** 2


def checked(weights: np.ndarray) -> np.ndarray:
    """A pattern as float32.

    Raises:
        HeadscopeError: it is no matrix, or is empty.
    """
    found = np.asarray(weights, np.float32)
    if found.ndim != 2 or not found.size:
        raise HeadscopeError(
            f"A pattern is a matrix [query, key] of one head, with a token at least, not an array "
            f"of shape {list(found.shape)}."
        )
    return found
