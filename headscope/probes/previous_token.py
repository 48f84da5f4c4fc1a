from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.repeated import Repeated


@dataclass(frozen=True)
class PreviousToken(Probe):
    """Attention on the token just before.

    score = mean over rows i >= 1 of A[i, i - 1]; in [0, 1].

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

    Attributes:
        every_row: average over row 0 too, which has no token before it: TransformerLens'
            `detect_head`.
    """

    paper = "Elhage et al. 2021, transformer-circuits.pub"
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8))
    every_row: bool = False

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) < 2:
            raise HeadscopeError("one token alone has none before it; use longer prompts.")

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        rows = torch.arange(1, len(reading.token_ids), device=attention.q.device)
        found = attention.at(rows, rows - 1, invisible="zero")[0]
        return {"previous_token": found.sum(-1) / (len(rows) + self.every_row)}
