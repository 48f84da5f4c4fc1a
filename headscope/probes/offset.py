from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.repeated import Repeated


@dataclass(frozen=True)
class Offset(Probe):
    """Attention at one fixed distance: heads that look n tokens back.

    curve(n) = mean of A[i, i - n] for n = 1 ... most, over up to `sampled` rows i, evenly spaced
    from row `most` on; score = its largest value, in [0, 1], and `offset_best` the n where it
    stands, both on each prompt by itself. A key that a sliding window hides counts as no attention.

    Source: previous-token heads (Elhage et al. 2021, "A Mathematical Framework for Transformer
    Circuits") at any distance; n = 1 is `previous_token` on a sample of its rows. The largest over
    n is headscope's own.

    Attributes:
        most: the largest distance, in tokens.
        sampled: rows at most.
    """

    paper = "after Elhage et al. 2021, transformer-circuits.pub"
    scores: ClassVar[Mapping[str, str]] = {
        "offset_best": "the distance with the most attention, in tokens"
    }
    curves: ClassVar[Mapping[str, str]] = {"offset_curve": "distance from 1 token to `most`"}
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8))
    most: int = 16
    sampled: int = 64

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if self.sampled < 1 or not 1 <= self.most < len(prompt):
            raise HeadscopeError(
                f"the probe 'offset' looks up to {self.most} tokens back, from {self.sampled} rows "
                f"of a prompt of {len(prompt)} tokens; use longer prompts, or a most between 1 and "
                f"{len(prompt) - 1} and a sampled of 1 or more."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        back = torch.arange(1, self.most + 1, device=attention.q.device)
        room = attention.n_queries - self.most
        count = min(self.sampled, room)
        rows = self.most + torch.arange(count, device=back.device) * room // count
        keys = (rows[:, None] - back)[:, :, None]
        found = attention.mass_on_sets(rows[:, None], keys)[0]
        curve = reduce(found, "head back row 1 -> head back", "mean")
        best = curve.max(1)
        return {
            "offset": best.values,
            "offset_best": back[best.indices].to(curve),
            "offset_curve": curve,
        }
