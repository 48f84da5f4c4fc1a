"""Any prompts with answers as an eval: a prompt family's, or those of a file."""

from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.prompts.base import PromptFamily
from headscope.prompts.needle import Needle


@dataclass(frozen=True)
class _Given(Eval):
    """The prompts of a family, each with the answer that it expects."""

    source = "the prompts themselves"
    licence = "theirs"
    family: PromptFamily = field(default_factory=Needle, kw_only=True)

    @property
    def title(self) -> str:
        return self.family.name

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        return Item(self.family.prompt(index, tokenizer))

    def items(self, tokenizer: PreTrainedTokenizerBase) -> list[Item]:
        return [Item(prompt) for prompt in self.family.prompts(tokenizer)]


def given(family: PromptFamily) -> Eval:
    """An eval of the prompts of a family."""
    return _Given(samples=family.samples, seed=family.seed, family=family)
