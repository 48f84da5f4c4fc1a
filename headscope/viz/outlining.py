"""The edge of a set of cells, such as the keys that a pattern lets each query see."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from headscope.patterns.base import Pattern

_PAIRS = 2**22  # pairs of one mask


def inside(pattern: "Pattern", n: int, size: int = 1) -> np.ndarray:
    """[square, square]: where a pattern lets a query see a key, for a text of n tokens.

    Args:
        size: tokens on a side of a square; it is inside where a pair of it is.
    """
    import torch

    pattern = pattern.at(n)
    squares = -(-n // size)
    key = torch.arange(n)[None]
    rows = max(size, _PAIRS // n // size * size)
    found = np.zeros((squares, squares), bool)
    for start in range(0, n, rows):
        query = torch.arange(start, min(start + rows, n))[:, None]
        seen = (pattern.mask(query, key) & (key <= query)).numpy()
        padded = np.zeros((-(-len(query) // size) * size, squares * size), bool)
        padded[: len(query), :n] = seen
        pooled = padded.reshape(-1, size, squares, size).max((1, 3))
        found[start // size :][: pooled.shape[0]] = pooled
    return found


def edges(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the lines around a set of cells, NaN between pieces; cell (i, j) is centred on
    y = i, x = j.

    Args:
        cells: [row, column] bool.
    """
    framed = np.pad(cells, 1)
    pieces = []
    for turned, lines in ((False, framed), (True, framed.T)):
        changes = (lines[1:] != lines[:-1])[:, 1:-1]  # [line between rows, place along it]
        steps = np.diff(np.pad(changes, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        line, start = np.nonzero(steps == 1)
        stop = np.nonzero(steps == -1)[1]
        at = line - 0.5
        along = np.stack([start - 0.5, stop - 0.5, np.full(len(at), np.nan)], 1)
        over = np.stack([at, at, np.full(len(at), np.nan)], 1)
        pieces.append((over, along) if turned else (along, over))
    x, y = (np.concatenate([piece[i] for piece in pieces]).ravel() for i in (0, 1))
    return x, y
