from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from definitions import Case, a_prompt
from headscope.prompts.base import Prompt, PromptFamily


@dataclass(frozen=True)
class _Slots(PromptFamily):
    """The prompt of the other definitions, which has documents in it."""

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        return a_prompt()[1]


PARAMETERS = {"prompts": _Slots(samples=2), "queries": 2, "skip": 5, "sink": 0.2}


def define(case: Case) -> dict[str, list]:
    prompt = case.reading.prompt
    documents = [range(*prompt.spans[f"doc_{slot}"]) for slot in range(4)]
    slots = []
    for p in case.pattern.tolist():
        by_row = []
        for row in (p[len(prompt) - 2], p[len(prompt) - 1]):
            kept = [
                [row[j] for j in document if j >= 5 and row[j] <= 0.2 * sum(row)]
                for document in documents
            ]
            by_row.append([sum(mass) / max(1, len(mass)) for mass in kept])
        slots.append([(a + b) / 2 for a, b in zip(*by_row, strict=True)])
    first = [(b[0] - (b[1] + b[2]) / 2) / (sum(b) / 4) if sum(b) else 0.0 for b in slots]
    last = [(b[3] - (b[1] + b[2]) / 2) / (sum(b) / 4) if sum(b) else 0.0 for b in slots]
    both = zip(first, last, strict=True)
    return {
        "basin": [(a + b) / 2 for a, b in both],
        "basin_first": first,
        "basin_last": last,
        "basin_slots": slots,
    }
