"""Trends along positions, over the points that count."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor


class Trend(NamedTuple):
    """How y follows x: both are 0 where fewer than three points count or nothing varies."""

    correlation: Float[Tensor, "..."]  # Pearson's, in [-1, 1]
    slope: Float[Tensor, "..."]  # of the line of least squares, in y per x


def trend(
    x: Float[Tensor, "... point"], y: Float[Tensor, "... point"], counts: Bool[Tensor, "... point"]
) -> Trend:
    """The linear trend of y over x along the last axis, over the points that count."""
    n = counts.sum(-1, keepdim=True)
    dx, dy = (
        (v - v.masked_fill(~counts, 0).sum(-1, keepdim=True) / n.clamp(min=1)) * counts
        for v in (x, y)
    )
    xx, yy, xy = dx.square().sum(-1), dy.square().sum(-1), (dx * dy).sum(-1)
    defined = (n[..., 0] >= 3) & (xx > 0) & (yy > 0)
    correlation = (xy / (xx * yy).sqrt().where(defined, 1)).clamp(-1, 1)
    return Trend(correlation.where(defined, 0), (xy / xx.where(defined, 1)).where(defined, 0))


def ranks(
    x: Float[Tensor, "... point"], counts: Bool[Tensor, "... point"]
) -> Float[Tensor, "... point"]:
    """The rank of each point among those that count, equal ones sharing their mean rank."""
    others = counts[..., None, :]
    below = (x[..., None, :] < x[..., :, None]) & others
    level = (x[..., None, :] == x[..., :, None]) & others
    return below.sum(-1) + (level.sum(-1) - 1) / 2
