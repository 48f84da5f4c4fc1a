from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.probes.copies import copies, mean_on_copies
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.repeated import Repeated


@dataclass(frozen=True)
class Induction(Probe):
    """Prefix matching: attention on the tokens that followed earlier copies of this one.

    score = mean over rows i with an earlier copy of sum_{j <= i, x_{j-1} = x_i} A[i, j]; in [0, 1].

    Source: Olsson et al. 2022, arXiv 2209.11895, "prefix matching", summed over earlier repeats.

    Attributes:
        every_row: average over all rows, copy or not: TransformerLens' `detect_head`.
    """

    paper = "Olsson et al. 2022, arXiv 2209.11895"
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8))
    every_row: bool = False

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        copies(torch.tensor(prompt.token_ids))

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        return {"induction": mean_on_copies(attended, reading, 1, self.every_row)}
