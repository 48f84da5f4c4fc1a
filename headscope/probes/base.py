"""Probes: what is measured about every head on a prompt."""

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.prompts.base import Prompt, PromptFamily
from headscope.registry import Registered
from headscope.sweep import Sweep

Rows = Literal["answer", "last", "all"]
Cost = Literal["rows", "all rows", "columns", "own pass", "training"]
KvView = Literal["max", "mean", "native"]

Made = TypeVar("Made")

CLIP = 128  # tokens; where the shared sweep cuts distances


@dataclass(frozen=True, eq=False)
class Reading:
    """The pass that a probe reads.

    Attributes:
        prompt: the prompt; its rows come first where the pass holds them.
        model: the model, for its weights.
        token_ids: every token that went through the model, the response's among them.
        response: the model's own greedy answer; empty where none was asked for.
        answer_rows: indices, among this pass's queries, of the rows that produced the response:
            row i produced response[i].
    """

    prompt: Prompt
    model: HeadModel
    token_ids: Int[Tensor, " token"]
    response: Int[Tensor, " new"]
    answer_rows: Int[Tensor, " new"]
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)
    _of_layer: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, make: Callable[["Reading"], Made]) -> Made:
        """What a function makes of this reading, made once for all layers."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    def shared(self, attended: Attended, make: Callable[[Attended, "Reading"], Made]) -> Made:
        """What a function makes of a layer, made once for all probes that ask for it."""
        if self._of_layer.get("attended") is not attended:
            self._of_layer.clear()  # what is read of one layer is not kept beyond it
            self._of_layer["attended"] = attended
        if make not in self._of_layer:
            self._of_layer[make] = make(attended, self)
        return self._of_layer[make]

    def sweep(self, attended: Attended) -> Sweep:
        """Statistics of all rows of a layer."""
        return self.shared(attended, _sweep)

    def last_rows(self, n: int = 1) -> list[int]:
        """Indices of the last n rows of the prompt: the last one produces the answer's start."""
        stop = len(self.prompt)
        return list(range(max(0, stop - n), stop))


def _sweep(attended: Attended, reading: Reading) -> Sweep:
    return attended.attention.sweep(CLIP)


@dataclass(frozen=True)
class Probe(Registered, ABC):
    """One way to score heads; a frozen dataclass whose fields are its parameters.

    A probe sees one finished attention at a time and gives a number per query head; `scan`
    averages over prompts and puts an interval around the mean. A probe that alters the pass
    declares `alters`, brings its own `read`, and shares no pass.

    Attributes:
        prompts: the family of prompts that it is measured on.
    """

    registry: ClassVar[dict[str, "type[Probe]"]] = {}
    paper: ClassVar[str]  # where its definition comes from
    # Which rows it reads. "answer": those that made the model's own answer, on prompts that it
    # answered rightly; "last": the last rows of the prompt; "all": every row.
    rows: ClassVar[Rows] = "all"
    # What it costs beside the forward pass: a few rows, one pass over all rows, a second pass
    # for columns, forward passes of its own, or a study of all prompts together.
    cost: ClassVar[Cost] = "rows"
    alters: ClassVar[bool] = False
    training: ClassVar[bool] = False  # takes long: not among "all" probes unless asked for
    spans: ClassVar[tuple[str, ...]] = ()  # spans that a prompt has to have
    # How query heads make their kv_head's score; "native" where all of a group carry its own.
    kv_view: ClassVar[KvView] = "max"
    scores: ClassVar[Mapping[str, str]] = {}  # further scores beside its own: name -> meaning
    curves: ClassVar[Mapping[str, str]] = {}  # [head, point] for each head: name -> the points
    prompts: PromptFamily  # what it is measured on

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        """Scores of one layer's query heads on one prompt, by name; its own goes by its name.

        Curves are [head, point], with as many points on every prompt. A probe that alters the
        pass writes `read` instead.
        """
        raise TypeError(f"{type(self).__name__} measures no pass that it shares with others.")

    def read(self, model: HeadModel, prompt: Prompt) -> Mapping[str, Float[Tensor, "layer head"]]:
        """For a probe that alters the pass: all layers' scores on one prompt."""
        raise TypeError(f"{type(self).__name__} declares `alters` and brings no `read`.")

    @classmethod
    def score_names(cls) -> tuple[str, ...]:
        return (cls.name, *cls.scores)

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Everything that `measure` gives, curves included."""
        return (*cls.score_names(), *cls.curves)

    def check_model(self, model: HeadModel) -> None:
        """Refuse a model that the probe says nothing about, before anything is measured.

        Raises:
            HeadscopeError: it names the probe and what the model lacks.
        """

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt that lacks what the probe reads, before anything is measured.

        Raises:
            HeadscopeError: a span or the answer is missing; it names probe and span.
        """
        for name in self.spans:
            if name not in prompt.spans:
                raise HeadscopeError(
                    f"the probe {self.name!r} needs a span {name!r} in every prompt; add it to "
                    "the prompts, or leave the probe out."
                )
        if self.rows == "answer" and not prompt.answer_ids:
            raise HeadscopeError(
                f"the probe {self.name!r} reads the model's answer, and there is no 'answer' to "
                "judge it by; add one, or leave the probe out."
            )
