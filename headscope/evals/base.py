"""Evals: seeded questions with known answers, forced by prefix, scored by log-probability."""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.base import Prompt, Split
from headscope.registry import Registered

Metric = Literal["answer", "choice", "tokens"]
TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """One question, and how its answer is scored.

    Attributes:
        prompt: the question. Its `answer_ids` are what should follow; "answer" is the span of the
            prompt where the answer stands ("answer_0", "answer_1", ... of several). Its facts hold
            "length" (the tokens asked for, 0 where the prompt is as long as it is) and where there
            is one "depth" (0 to 1) or "slot".
        counted: which tokens of the answer count, one bool each; all of them if empty. Separators
            between several values do not.
        wrong: other answers that compete with it, as tokens that would follow the prompt.
        right: further answers that are as good.
        corrupt: the same question changed in as few tokens as possible, equal in length, in which
            its own `answer_ids` are right, one of `wrong`; for activation patching.
        chunk: how many tokens of the answer go through the model at a time, each chunk after what
            came before it; all in one pass if 0.
        buckets: into how many runs of equal length the answer's tokens are cut for a curve.
    """

    prompt: Prompt
    counted: tuple[bool, ...] = ()
    wrong: tuple[TokenIds, ...] = ()
    right: tuple[TokenIds, ...] = ()
    corrupt: Prompt | None = None
    chunk: int = 0
    buckets: int = 0

    @property
    def chance(self) -> float:
        """How often a guess among the choices is right; 0 where there are none."""
        good = 1 + len(self.right)
        return good / (good + len(self.wrong)) if self.wrong else 0.0


@dataclass(frozen=True)
class Eval(Registered, ABC):
    """A task: a frozen dataclass whose fields are its parameters, and one function to write.

    Sample i depends on the parameters and i alone, so that more samples only add to fewer. What is
    drawn for one split is not drawn for another: heads are found on "detect", chosen on "tune" and
    tested on "test".

    Metrics. "answer": nats of the answer's counted tokens under teacher forcing, and whether every
    one of them is the most likely token, which is when greedy decoding says it. "choice": the log
    of the probability of all right answers less that of all wrong ones (of one each: the logit
    difference), and whether the most likely of them is right. "tokens": nats a token of a running
    text, no answer that could be right or wrong.

    Attributes:
        samples: how many questions.
        seed: of everything that is drawn.
        split: "detect", "tune" or "test": what the questions are for.
        lengths: of the prompts in tokens, taken in turn, met within 1 % and never exceeded. Where
            an eval is short by nature the default is none: prompts are as long as they are, and
            otherwise prose stands before the question.
    """

    registry: ClassVar[dict[str, "type[Eval]"]] = {}
    metric: ClassVar[Metric] = "answer"
    source: ClassVar[str]  # where the idea comes from
    licence: ClassVar[str]  # of that idea's published code or data, none of which is copied here
    in_prompt: ClassVar[bool] = True  # the answer stands in the prompt, in the span "answer"
    samples: int = 20
    seed: int = 0
    split: Split = field(default="test", kw_only=True)
    lengths: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        self.check_lengths()

    def check_lengths(self) -> None:
        """Refuse lengths that no prompt can have."""
        if any(length < 1 for length in self.lengths):
            raise HeadscopeError(f"The eval {self.name!r} needs lengths of at least one token.")

    @property
    def title(self) -> str:
        """What it is called in results; prompts of a family of this name may be the same."""
        return self.name

    @abstractmethod
    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        """The question of one index.

        Raises:
            HeadscopeError: it cannot be made with this tokenizer, or not in this length.
        """

    def items(self, tokenizer: PreTrainedTokenizerBase) -> list[Item]:
        """All questions."""
        return [self.item(index, tokenizer) for index in range(self.samples)]

    def length(self, index: int) -> int:
        """The length that a sample should have; 0 where it is as long as it is."""
        return self.lengths[index % len(self.lengths)] if self.lengths else 0

    def rng(self, *parts: Any) -> random.Random:
        """A generator of its own for each thing that is drawn."""
        return random.Random(repr((type(self).__name__, self.seed, self.split, *parts)))
