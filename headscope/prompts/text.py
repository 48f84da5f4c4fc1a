"""Plain running text."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts import filler
from headscope.prompts.base import Prompt, PromptFamily, Split, encode


@dataclass(frozen=True)
class Text(PromptFamily):
    """Passages of the filler, cut to an exact number of tokens.

    Attributes:
        lengths: lengths in tokens, taken in turn.
        split: which third of the filler is used; thirds share nothing.
    """

    lengths: tuple[int, ...] = (512,)
    split: Split = "detect"

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        if not self.lengths or min(self.lengths) < 1:
            raise HeadscopeError("Text prompts need lengths of at least one token.")
        length = self.lengths[index % len(self.lengths)]
        start = self.rng(index).randrange(len(filler.words(self.split)))
        passage = filler.join(filler.passage(self.split, start, length))
        whole = encode(tokenizer, passage)  # a word is at least one token
        return Prompt(whole.token_ids[:length], facts={"length": length})


def reference_text(context_length: int, seed: int) -> Text:
    """What heads say where nothing is tested: a few passages of the split that tunes."""
    return Text(samples=4, split="tune", seed=seed, lengths=(min(512, context_length),))
