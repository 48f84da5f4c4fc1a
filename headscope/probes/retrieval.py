from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class Retrieval(Probe):
    """Copy-paste score: how much of the needle a head looked at while the model copied it.

    score = |{j in answer span : some response token y_t = x_j and argmax_i A[t, i] = j}| / |span|,
    over the rows t that produced the model's own greedy answer; in [0, 1], averaged over accepted
    prompts only. A position counts once, so that saying it twice does not raise the score.

    Source: Wu et al. 2024, arXiv 2404.15574, section 2; a retrieval head scores above 0.1 there.
    """

    paper = "Wu et al. 2024, arXiv 2404.15574"
    rows = "answer"
    spans = ("answer",)
    prompts: PromptFamily = field(default_factory=Needle)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        start, stop = reading.prompt.span("answer")
        top = attended.attention.rows(reading.answer_rows)[0].argmax(-1)  # [head, row]
        same = reading.token_ids[top] == reading.response
        hit = same & (top >= start) & (top < stop)
        # One column beyond the span takes every miss.
        where = torch.where(hit, top - start, stop - start)
        found = torch.zeros(len(top), stop - start + 1, device=top.device).scatter(1, where, 1.0)
        return {"retrieval": found[:, :-1].mean(1)}
