from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.patterns import Streaming as StreamingPattern
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class Streaming(Probe):
    """Attention inside a streaming pattern: the first tokens and a recent window.

    score = mean over rows i >= sink + window of sum_{j < sink or i - j < window} A[i, j]; in
    [0, 1]. Earlier rows see nothing else and say nothing.

    Source: the pattern of Xiao et al. 2023, arXiv 2309.17453; as a head score it is a stand-in
    for DuoAttention's trained gate (Xiao et al. 2024, arXiv 2410.10819).

    Attributes:
        pattern: the first tokens and the window that count as inside.
    """

    paper = "after Xiao et al. 2023, arXiv 2309.17453"
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))
    pattern: StreamingPattern = field(default_factory=lambda: StreamingPattern(4, 64))

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        first = self.pattern.sink + self.pattern.window
        if len(prompt) <= first:
            raise HeadscopeError(
                f"the probe 'streaming' needs more than sink + window = {first} tokens, and there "
                f"are {len(prompt)}; use longer prompts or a smaller window."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        first, n = self.pattern.sink + self.pattern.window, attended.attention.n_queries
        inside = attended.attention.mass(self.pattern, range(first, n))
        return {"streaming": inside[0].mean(-1)}
