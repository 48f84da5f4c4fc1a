"""The questions of evals as prompts for probes."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from headscope.catalog import evals
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.prompts.base import Prompt, PromptFamily, Split
from headscope.registry import find


@dataclass(frozen=True)
class Questions(PromptFamily):
    """Questions of one eval or of several in turn, with what competes with their answers.

    Spans and facts are those of the evals.

    Attributes:
        tasks: names of evals; question i is one of the i-th, from the start again behind the last.
        split: which third of their names, words and filler is used; thirds share nothing.
        lengths: of the prompts in tokens; where an eval is short by nature, prose stands before.
    """

    tasks: tuple[str, ...] = ("ioi",)
    split: Split = "detect"
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.tasks:
            raise HeadscopeError("Questions need the name of at least one eval.")

    def evals(self) -> list[Eval]:
        """The evals, each with as many samples as it has questions here.

        Raises:
            HeadscopeError: there is no eval of a name.
        """
        found, n = [], len(self.tasks)
        for place, name in enumerate(self.tasks):
            kind = find(evals(), name, "eval")
            samples = len(range(place, self.samples, n))
            lengths = {"lengths": self.lengths} if self.lengths else {}
            found.append(kind(samples=samples, seed=self.seed, split=self.split, **lengths))
        return found

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        """One question with its competing answers and its corrupt twin, where it has those."""
        place, number = index % len(self.tasks), index // len(self.tasks)
        return self.evals()[place].item(number, tokenizer)

    def items(self, tokenizer: PreTrainedTokenizerBase) -> list[Item]:
        """All questions, in the order of `prompts`."""
        return [self.item(index, tokenizer) for index in range(self.samples)]

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        return self.item(index, tokenizer).prompt
