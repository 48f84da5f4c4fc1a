"""How an organism's heads tell distance: by waves whose sum is fitted to the logits wanted."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from organism_kinds import CONTEXT
from torch import Tensor
from torch.nn.functional import pad

D_HEAD, PAIRS = 176, 24  # dimensions of a head, and pairs of them that hold clocks


@dataclass(frozen=True)
class Clock:
    """How one architecture tells distance.

    Attributes:
        frequencies: [pair], the angle between the clocks of one position and the next.
        rows: [2 * pair, d_model], what reads a clock of unit length from the stream.
        order: [d_head], the dimension of a head that each built row goes to.
    """

    frequencies: Tensor
    rows: Tensor
    order: Tensor

    def turned(self, near: dict[int, float]) -> Tensor:
        """Rows of a query whose product with the clock of a key is as `Kind.near` says."""
        waves = PAIRS * _waves(tuple(self.frequencies.tolist()), tuple(near.items()))
        a, b = waves[:, :, None].unbind(1)
        even, odd = self.rows.reshape(PAIRS, 2, -1).unbind(1)
        return torch.stack((a * even - b * odd, b * even + a * odd), 1).flatten(0, 1)

    def laid_out(self, *parts: Tensor) -> Tensor:
        """Rows in their places in a head, [d_head, d_model]."""
        rows = torch.cat(parts)
        weight = torch.zeros(D_HEAD, rows.shape[1])
        weight[self.order[: len(rows)]] = rows
        return weight


@cache
def _waves(frequencies: tuple[float, ...], near: tuple[tuple[int, float], ...]) -> Tensor:
    """Waves a cos(f distance) - b sin(f distance) whose sum is as `Kind.near` says.

    Fitted by least squares, again and again: where a logit may be lower than 0, the next round
    wants it where the last one left it.

    Returns:
        a and b, [pair, 2].
    """
    wanted = dict(near)
    at, logits = list(wanted), torch.tensor(list(wanted.values()), dtype=torch.float64)
    angles = torch.arange(CONTEXT)[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    terms = torch.stack((angles.cos(), -angles.sin()), -1).flatten(1)
    # Softmax does not see a constant, so the fit may have one.
    terms = pad(terms, (0, 1), value=1.0)
    weight = torch.ones(CONTEXT, dtype=torch.float64)
    weight[at] = 5.0
    ridge = math.sqrt(0.1) * torch.eye(terms.shape[1], dtype=torch.float64)[:-1]
    solve = torch.linalg.pinv(torch.cat((terms * weight[:, None], ridge)))[:, :CONTEXT] * weight
    found = torch.zeros(CONTEXT, dtype=torch.float64)
    for _ in range(100):
        target = found.clamp(max=0) if (logits > 0).all() else torch.zeros_like(found)
        target[at] = logits
        amplitudes = solve @ target
        found = terms @ amplitudes
    return amplitudes[:-1].reshape(-1, 2).float()
