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
class DuplicateToken(Probe):
    """Attention on earlier copies of this token itself.

    score = mean over rows i with an earlier copy of sum_{j < i, x_j = x_i} A[i, j]; in [0, 1].

    Source: Wang et al. 2022, arXiv 2211.00593 (duplicate token heads of the IOI circuit).

    Attributes:
        every_row: average over all rows, copy or not: TransformerLens' `detect_head`.
    """

    paper = "Wang et al. 2022, arXiv 2211.00593"
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8))
    every_row: bool = False

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        copies(torch.tensor(prompt.token_ids))

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        return {"duplicate_token": mean_on_copies(attended, reading, 0, self.every_row)}
