from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily, Range
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class Sentence(Probe):
    """Whether the last row of the prompt points at the needle's sentence before all others.

    The feature of a sentence s of the context is f_s = mean over its tokens j of A[n - 1, j],
    from the row that begins the answer. score = 1 if the needle's sentence has a greater feature
    than every other, else 0: a hit rate over prompts, by chance one in as many as there are
    sentences. sentence_share = f_needle / sum_s f_s, in [0, 1]. Both are 0 where the row sees no
    sentence. Renormalising the row over the context first, as the source does, changes neither.

    The needle's sentence is the span sentence_i that shares most tokens with the span needle.

    Source: the feature is Sentinel's (2025, arXiv 2505.23277), which trains a classifier on the
    features of all heads; the score of a single head is headscope's own.
    """

    paper = "after Sentinel 2025, arXiv 2505.23277"
    rows = "last"
    spans = ("needle",)
    scores = {"sentence_share": "the needle's sentence's share of all sentences' mean attention"}  # noqa: RUF012
    prompts: PromptFamily = field(default_factory=Needle)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        sentences = prompt.numbered("sentence")
        if len(sentences) < 2:
            raise HeadscopeError(
                f"the probe 'sentence' compares sentences and finds {len(sentences)}; mark at "
                "least two with spans sentence_0, sentence_1 and so on."
            )
        if max(shared_with_needle(prompt, sentences)) < 1:
            raise HeadscopeError(
                "the probe 'sentence' finds no sentence that holds the span 'needle'; mark its "
                "sentence too."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        row = attended.attention.rows(reading.last_rows())[0, :, 0]
        sentences = reading.prompt.numbered("sentence")
        shared = shared_with_needle(reading.prompt, sentences)
        lengths = torch.tensor([stop - start for start, stop in sentences], device=row.device)
        tokens = torch.cat([torch.arange(*span, device=row.device) for span in sentences])
        owner = torch.arange(len(sentences), device=row.device).repeat_interleave(lengths)
        sums = row.new_zeros(len(row), len(sentences)).index_add(1, owner, row[:, tokens])
        features = sums / lengths
        needle = shared.index(max(shared))
        found, total = features[:, needle], features.sum(-1)
        others = torch.cat((features[:, :needle], features[:, needle + 1 :]), dim=1)
        return {
            "sentence": (found > others.amax(-1)).to(row.dtype),
            "sentence_share": found / total.where(total > 0, 1),
        }


def shared_with_needle(prompt: Prompt, sentences: Sequence[Range]) -> list[int]:
    """How many tokens every sentence shares with the needle; none or fewer if it shares none."""
    low, high = prompt.span("needle")
    return [min(stop, high) - max(start, low) for start, stop in sentences]
