"""Prompts of random words under every span that probes ask for, for scans of tiny models."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from definitions import SPANS
from headscope.prompts import Prompt, PromptFamily


@dataclass(frozen=True)
class _Marked(PromptFamily):
    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        words = self.rng(index).choices(range(3, len(tokenizer)), k=38)
        return Prompt(tuple(words), SPANS)


MARKED = _Marked(samples=2)
