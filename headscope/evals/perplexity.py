from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.prompts.text import Text


@dataclass(frozen=True)
class Perplexity(Eval):
    """How well a model foretells plain running text, as a control.

    Nats of every token after the first `given`, averaged; perplexity is e to the power of the loss,
    -1 times that. The text is the filler that needles are hidden in.

    Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition
    tasks".

    Attributes:
        given: tokens at the start that are not counted.
    """

    metric = "tokens"
    source = "Jelinek et al. 1977; the text is the public-domain Jargon File"
    licence = "none needed"
    in_prompt = False
    lengths: tuple[int, ...] = field(default=(256,), kw_only=True)
    given: int = field(default=32, kw_only=True)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        family = Text(seed=self.seed, lengths=self.lengths, split=self.split)
        text = family.prompt(index, tokenizer)
        prompt = replace(
            text, token_ids=text.token_ids[: self.given], answer_ids=text.token_ids[self.given :]
        )
        return Item(prompt)
