from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class NeedleMass(Probe):
    """Attention on the whole needle while the model answers.

    score = mean over answer rows t of sum_{j in needle} A[t, j]; in [0, 1], averaged over accepted
    prompts only. Unlike the copy-paste score it also sees heads that read without copying.

    Source: the span mass of contextual heads, Zhu et al. 2025, arXiv 2503.23306, on one needle.
    """

    paper = "after Zhu et al. 2025, arXiv 2503.23306"
    rows = "answer"
    spans = ("needle",)
    prompts: PromptFamily = field(default_factory=Needle)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        needle = slice(*reading.prompt.span("needle"))
        return {"needle_mass": attended.attention.mass(needle, reading.answer_rows)[0].mean(-1)}
