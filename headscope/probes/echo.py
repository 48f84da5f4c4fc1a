from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.probes.latest_copies import mean_on_latest_copies, require_copies
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.repeated import Repeated


@dataclass(frozen=True)
class Echo(Probe):
    """Attention on the latest earlier copy of this token itself.

    score = mean over rows m with an earlier copy of A[m, c(m)], where c(m) = max {j < m : x_j =
    x_m}; in [0, 1]. It is `duplicate_token` without the older copies: a head that spreads over
    all of them has a high `duplicate_token` and a lower `echo`. A copy that a sliding window
    hides counts as no attention.

    Source: the echo heads of RazorAttention, Tang et al. 2024, arXiv 2407.15891, in the reading
    that counts the latest copy only; other code averages over all copies and its scores are lower.
    There 2 500 random tokens are said four times, and the top 1 % of the kv_heads are kept; ranks
    from the short default say less about copies far away.
    """

    paper = "Tang et al. 2024, arXiv 2407.15891"
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8))

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        require_copies(prompt, self.name)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        return {"echo": mean_on_latest_copies(attended, reading, after=0)}
