from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class Sink(Probe):
    """Attention parked on the first token.

    sink = mean over all rows i of A[i, 0]. sink_rate = the share of prompts with
    alpha_1 = 1/T sum_{i < T} A[i, 0] above epsilon, over the first T tokens; both in [0, 1].

    Source: Gu et al. 2024, arXiv 2410.10781, section 3: epsilon = 0.3, T = 64. Nearly every head
    of a large RoPE model passes that, so the continuous score is the one to rank by.

    Attributes:
        epsilon: mean attention on the first token above which a prompt counts for sink_rate.
        first: T, the rows that sink_rate looks at.
    """

    paper = "Gu et al. 2024, arXiv 2410.10781"
    scores = {"sink_rate": "share of prompts with alpha_1 > epsilon over the first T tokens"}  # noqa: RUF012
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))
    epsilon: float = 0.3
    first: int = 64

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        on_first = attended.attention.mass([0])[0]
        early = on_first[:, : self.first].mean(-1)
        return {"sink": on_first.mean(-1), "sink_rate": (early > self.epsilon).to(early.dtype)}
