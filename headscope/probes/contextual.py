from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily, Range
from headscope.prompts.documents import Documents


@dataclass(frozen=True)
class Contextual(Probe):
    """Attention on the document that holds the answer, among others that do not.

    contextual = mean over answer rows t of sum_{j in gold} A[t, j]; contextual_distractors = the
    same mass on the other documents, divided by their number, so that the two compare;
    contextual_sink = the same on the first `sink` tokens. All in [0, 1], averaged over accepted
    prompts only.

    Source: the contextual score of Focus Directions (Zhu et al. 2025, arXiv 2503.23306), whose
    code averages over the rows of the response's tokens, where the rows that produced them are
    averaged here; its documents are real and found by a retriever. It sums or maximises over the
    other documents.

    Attributes:
        sink: how many first tokens contextual_sink counts.
    """

    paper = "Zhu et al. 2025, arXiv 2503.23306"
    scores = {  # noqa: RUF012
        "contextual_distractors": "attention on each other document, on average",
        "contextual_sink": "attention on the first tokens",
    }
    rows = "answer"
    spans = ("gold",)
    prompts: PromptFamily = field(default_factory=Documents)
    sink: int = 2

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if not _distractors(prompt):
            raise HeadscopeError(
                "the probe 'contextual' compares documents, and there is none beside the gold one; "
                "give each document a span 'doc_0', 'doc_1', ..., or leave the probe out."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        received = attended.attention.rows(reading.answer_rows)[0].mean(1)  # [head, key]

        def on(span: Range) -> Float[Tensor, " head"]:
            return received[:, slice(*span)].sum(-1)

        others = torch.stack([on(span) for span in _distractors(reading.prompt)])
        return {
            "contextual": on(reading.prompt.span("gold")),
            "contextual_distractors": others.mean(0),
            "contextual_sink": on((0, self.sink)),
        }


def _distractors(prompt: Prompt) -> list[Range]:
    return [span for span in prompt.numbered("doc") if span != prompt.span("gold")]
