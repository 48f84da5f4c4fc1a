from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.patterns.base import Pattern
from headscope.patterns.limits import at_least


@dataclass(frozen=True)
class Radial(Pattern):
    """The first tokens, the last ones, and ever fewer diagonals the further away they are.

    key < sink  or  d = query - key is below `width`, or in the band width * 2^(r-1) <= d <
    width * 2^r of an r >= 1, with d mod 2^r = 0, in tokens.

    Every band is twice as wide as the one before it and keeps half the share of its diagonals, so
    that each costs about width / 2 keys a row and a text of n tokens O(n log n).

    Source: after Radial Attention (Li et al. 2025, arXiv 2506.19852), whose mask is for frames of a
    video: windows within a pair of frames are halved as their distance doubles, down to a block,
    and from there on only every 2^r-th pair of frames is seen. This is its last part on one axis
    with causality, single tokens in the place of frames; the sink is the first frame there.

    Attributes:
        sink: tokens.
        width: tokens, the query's own among them.
    """

    paper = "after Li et al. 2025, arXiv 2506.19852"

    sink: int = 4
    width: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, vars(self), {"sink": 0, "width": 1})

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        distance = (query - key).clamp(min=0)
        times = distance.div(self.width, rounding_mode="floor")
        # The exponent of frexp is a whole number's bit length: 0 of 0, r in [2^(r-1), 2^r).
        band = torch.frexp(times.double()).exponent.long()
        return (key < self.sink) | (distance & ((1 << band) - 1) == 0)

    def repeats(self) -> tuple[int, int]:
        return 1, self.sink
