"""Prompts of every family at a length that a benchmark asks for."""

from dataclasses import replace

from headscope.prompts import Documents, Repeated
from headscope.prompts.base import PromptFamily, with_lengths

_DISTINCT = 32_768  # tokens of a repeated block: there must be so many in the vocabulary
_AROUND = 160  # tokens left for the task, the question and the chat template around documents


def stretched(family: PromptFamily, length: int) -> PromptFamily:
    """One prompt of a family, as long as asked for, or a little shorter for documents."""
    if isinstance(family, Documents):
        # There is not enough to say about one subject: long prompts have more documents instead.
        documents = max(family.documents, min(48, length // 2_000))
        each = (length - _AROUND) // documents
        return replace(family, samples=1, documents=documents, document_tokens=each)
    if isinstance(family, Repeated):
        times = max(family.times, -(-length // _DISTINCT))
        return replace(family, samples=1, lengths=(length,), times=times)
    return replace(with_lengths(family, [length]), samples=1)
