from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.probes.base import CLIP, Probe, Reading
from headscope.prompts.base import PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class Distance(Probe):
    """How far back a head looks on average.

    score = mean over all rows i of sum_j A[i, j] (i - j), in tokens, at least 0; it grows with the
    length of the prompt (uniform attention over n tokens has about n / 4), so compare it on equal
    lengths only. waad = the same with distances cut at 128 tokens, so that one glance at the start
    of a long prompt weighs no more than one at 128 tokens. A sliding window of w tokens truncates
    both at w - 1; attention on a learned sink is at no distance and counts as 0.

    Source: the span and the windowed average attention distance (WAAD) of arXiv 2510.13554, here of
    each head by itself over the rows of a prompt; there, over the rows of a response, WAAD averages
    the maps of the heads of least span first. Its W was not verified (a port uses 10, far below
    128).
    """

    paper = "after arXiv 2510.13554"
    scores = {  # noqa: RUF012
        "waad": f"mean distance of what is attended to, distances cut at {CLIP} tokens"
    }
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        swept = reading.sweep(attended)
        return {
            "distance": swept.distance[0].mean(-1),
            "waad": swept.clipped_distance[0].mean(-1),
        }
