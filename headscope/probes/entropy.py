from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class Entropy(Probe):
    """How widely a head spreads its attention.

    H_i = -sum_j A[i, j] log A[i, j]. score = mean over rows i >= 1 of H_i / log(m_i), where m_i is
    the number of keys that row i may see: in [0, 1], 1 where attention is uniform, whatever the
    length. entropy_nats = mean over the same rows of H_i, in nats; it grows with length. Row 0 has
    no choice. A learned sink counts as an outcome, in H_i and in m_i; in a layer with a sliding
    window m_i stops growing at the window. A row of a single outcome counts as 0.

    Source: Shannon's entropy of a row, as in Clark et al. 2019, arXiv 1906.04341, section 3.3,
    for an encoder; dividing by log(m_i) is headscope's own, since causal rows differ in length.
    """

    paper = "after Clark et al. 2019, arXiv 1906.04341"
    scores = {"entropy_nats": "mean entropy of the rows, in nats"}  # noqa: RUF012
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) < 2:
            raise HeadscopeError(
                "the probe 'entropy' needs a row with more than one key; use longer prompts."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        swept, sinks = reading.sweep(attended), attended.attention.sink_logits
        nats = swept.entropy[0, :, 1:]
        outcomes = swept.visible[0, :, 1:] + (0 if sinks is None else 1)
        # log(1) = 0 would divide an entropy of 0.
        most = torch.log(outcomes.clamp(min=2))
        return {"entropy": (nats / most).mean(-1), "entropy_nats": nats.mean(-1)}
