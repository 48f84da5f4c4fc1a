from dataclasses import dataclass, field

from headscope.interventions.pasta import Pasta
from headscope.interventions.spans import Span


@dataclass(frozen=True)
class ContextSteering(Pasta):
    """Give back to the user's words the attention that a chat template takes from them.

    `Pasta` on all heads and layers, mildly, with what the user says as the marked span.

    Source: Wang et al. 2024, "On the Loss of Context-awareness in General Instruction Fine-tuning",
    arXiv 2411.02688, whose code uses alpha 0.9 or 0.95.

    Attributes:
        span: what the user says; prompts of a chat template call it "user".
        alpha: the factor for everything else, above 0 and at most 1.
        heads, layers, part: which heads and rows steer; all if left out.
    """

    paper = "Wang et al. 2024, arXiv 2411.02688"
    span: Span = "user"
    alpha: float = field(default=0.9, kw_only=True)
