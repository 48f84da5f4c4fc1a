from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.documents import Documents


@dataclass(frozen=True)
class Basin(Probe):
    """Attention on documents by the slot they stand in: high at both ends in a basin head.

    B_p = mean over the last `queries` rows i of the prompt of the mean of A[i, j] over the tokens
    j of document p, the curve `basin_slots`. score = (mean(B_first, B_last) - mean B_middle) /
    mean B, middle being the slots of the middle third; positive for a basin. `basin_first` and
    `basin_last` are (B_first - mean B_middle) / mean B and the same for the last, and the score is
    their mean. All are 0 where the row sees no document, and at most the number of documents.

    Attention sinks are left out of B: the prompt's first `skip` tokens, and in each row and head
    every key with more than `sink` of that row's attention. Documents stand in other slots from
    prompt to prompt, so that what they say averages out over prompts, the gold one's part too.

    Source: after Attention Basin (arXiv 2508.05128) and Hsieh et al. 2024, "Found in the Middle",
    arXiv 2406.16008. Their layers, heads and counts were not seen: the score, the sinks left out
    and both biases are headscope's own definition.

    Attributes:
        queries: rows at the end of the prompt.
        skip: tokens at the start of the prompt that belong to no document.
        sink: share of a row's attention above which one key is a sink.
    """

    paper = "after Attention Basin, arXiv 2508.05128, and Hsieh et al. 2024, arXiv 2406.16008"
    rows = "last"
    scores: ClassVar[Mapping[str, str]] = {
        "basin_first": "how far the first document lies above the middle ones, in mean documents",
        "basin_last": "how far the last document lies above the middle ones, in mean documents",
    }
    curves: ClassVar[Mapping[str, str]] = {"basin_slots": "document slot, in order"}
    prompts: PromptFamily = field(default_factory=Documents)
    queries: int = 1
    skip: int = 4
    sink: float = 0.3

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        found = len(prompt.numbered("doc"))
        if found < 3:
            raise HeadscopeError(
                f"the probe 'basin' needs the spans doc_0, doc_1 and doc_2 at least, and there are "
                f"{found} of the kind; use prompts with documents, or leave the probe out."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        rows = attended.attention.rows(reading.last_rows(self.queries))[0]  # [head, row, key]
        slots = reading.prompt.numbered("doc")
        member = torch.zeros(rows.shape[-1], len(slots), device=rows.device, dtype=rows.dtype)
        for slot, (start, stop) in enumerate(slots):
            member[max(start, self.skip) : max(stop, self.skip), slot] = 1
        kept = (rows <= self.sink * rows.sum(-1, keepdim=True)).to(rows)
        by_slot = ((rows * kept) @ member / (kept @ member).clamp(min=1)).mean(1)
        third = len(slots) // 3
        middle = by_slot[:, third : len(slots) - third].mean(1)
        mean = by_slot.mean(1)
        seen = mean > 0
        first, last = (
            ((by_slot[:, slot] - middle) / mean.where(seen, 1)).where(seen, 0) for slot in (0, -1)
        )
        return {
            "basin": (first + last) / 2,
            "basin_first": first,
            "basin_last": last,
            "basin_slots": by_slot,
        }
