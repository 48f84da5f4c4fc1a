"""A window of one head's pattern as a picture of bounded size; runs where torch is."""

import heapq
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.viz.pooling import quantised

_PAIRS = 20


@dataclass(frozen=True, eq=False)
class Picture:
    """See `headscope_app.live.Answer`, whose content this is.

    Attributes:
        pairs, elsewhere: (query, key, weight).
    """

    factor: int
    weights: Float[np.ndarray, "query key"] | UInt8[np.ndarray, "query key"]
    pairs: list[tuple[int, int, float]]
    elsewhere: list[tuple[int, int, float]]


def picture(
    attention: Attention, queries: tuple[int, int], keys: tuple[int, int], exact: int, widest: int
) -> Picture:
    """Pool a window of one head's pattern while it streams by.

    Memory is that of the picture and of a few whole rows; the largest weight of each square is
    kept, so that a stripe one token wide is still seen.

    Args:
        attention: one head, batch 1.
        queries, keys: the first, and one after the last.
        exact: tokens of a side up to which nothing is pooled.
        widest: cells of a side where it is.
    """
    height, width = queries[1] - queries[0], keys[1] - keys[0]
    side = max(height, width)
    factor = 1 if side <= exact else -(-side // widest)
    cells = torch.zeros(-(-height // factor), -(-width // factor), device=attention.q.device)
    top, elsewhere = _Top(), _Top()
    for tile in attention.tiles(torch.arange(*queries)):
        low, high = max(tile.keys.start, keys[0]), min(tile.keys.stop, keys[1])
        if low >= high:
            continue
        part = tile.probabilities[0, 0, :, low - tile.keys.start : high - tile.keys.start].float()
        rows, columns = tile.queries, torch.arange(low, high, device=part.device)
        sides = low - keys[0], cells.shape[1] * factor - (high - keys[0])
        bands = pad(part, sides).unflatten(1, (-1, factor)).amax(2)
        down = ((rows - queries[0]) // factor)[:, None].expand_as(bands)
        cells.scatter_reduce_(0, down, bands, "amax")
        top.add(part, rows, columns)
        at_rest = (columns == 0) | (columns == rows[:, None])
        elsewhere.add(part.masked_fill(at_rest, 0), rows, columns)
    weights = cells.cpu().numpy()
    if factor > 1:
        weights = quantised(weights)
    return Picture(factor, weights, top.found(), elsewhere.found())


class _Top:
    """The pairs with the most attention of those that came by."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int]] = []

    def add(self, part: Tensor, rows: Tensor, columns: Tensor) -> None:
        """Take what may still be among them: part is [row, column]."""
        values, places = part.flatten().topk(min(_PAIRS, part.numel()))
        queries, keys = rows[places // part.shape[1]], columns[places % part.shape[1]]
        for each in zip(values.tolist(), queries.tolist(), keys.tolist(), strict=True):
            if each[0] <= 0:
                break
            if len(self._heap) < _PAIRS:
                heapq.heappush(self._heap, each)
            else:
                heapq.heappushpop(self._heap, each)

    def found(self) -> list[tuple[int, int, float]]:
        """(query, key, weight), the largest first."""
        return [(query, key, weight) for weight, query, key in sorted(self._heap, reverse=True)]
