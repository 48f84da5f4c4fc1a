"""Interventions: methods that change what heads do, for the length of a scope."""

from abc import ABC
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.prompts.base import Prompt
from headscope.registry import Registered
from headscope.run import Run
from headscope.stack import Attend, Life

if TYPE_CHECKING:
    from headscope.model import HeadModel

Site = Literal["prompt", "attention", "cache", "logits"]
Phase = Literal["prefill", "decode", "answer", "all"]
Claim = Literal["cache", "positions", "logits"]


@dataclass(frozen=True)
class Intervention(Registered, Life, ABC):
    """A recipe; `with intervention(model):` opens a scope in which it acts.

    Subclasses are frozen dataclasses whose fields are the method's parameters. What they learn
    about a sequence goes into `attention.run.state[self]`, never into the dataclass.
    """

    registry: ClassVar[dict[str, "type[Intervention]"]] = {}
    paper: ClassVar[str]  # who described it
    site: ClassVar[Site] = "attention"
    phase: ClassVar[Phase] = "all"  # when it acts, where its parameters say nothing else
    causal: ClassVar[bool] = True  # one full forward pass equals prefill and decode
    stateful: ClassVar[bool] = False  # keeps something between layers or steps
    claims: ClassVar[frozenset[Claim]] = frozenset()  # what one method alone may decide
    files: ClassVar[Mapping[str, type[Any]]] = {}  # fields that may be given as a path

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        """Stand around one layer's attention: pass on a changed one, or edit what comes back."""
        return attend(attention)

    def check(self, model: "HeadModel") -> None:
        """Refuse a model that the method's parameters do not fit, before anything is changed."""

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        """Parameters with those that a method has to measure on a model beforehand.

        A path given for one of `files` is what that file holds.
        """
        paths = {n: options[n] for n in cls.files if isinstance(options.get(n), str | Path)}
        return options | {name: cls.files[name].load(path) for name, path in paths.items()}

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple["Intervention", Prompt]:
        """The method and the prompt as they are for one prompt.

        Spans that the method names become this prompt's ranges; a method whose site is the prompt
        rewrites it.
        """
        return self, prompt

    @property
    def reads_prompt_alike(self) -> bool:
        """Whether a prompt's keys, but its last token's, are what they are without the method.

        Then one prefill serves many conditions; False is always safe.
        """
        return False

    @property
    def stepwise(self) -> bool:
        """Whether an answer has to be read token by token to be read as `generate` would."""
        return not self.causal

    @contextmanager
    def __call__(self, model: "HeadModel") -> Iterator["HeadModel"]:
        self.check(model)
        self._refuse_company(model)
        follows = self.stateful or self.site == "logits"
        with model.entered(self._finite, self if follows else None):
            yield model

    def _refuse_company(self, model: "HeadModel") -> None:
        for entry in model.stack.chain.entered:
            other = getattr(entry.around, "__self__", None)
            if self.stateful and other == self:
                raise HeadscopeError(
                    f"This {type(self).__name__} is in force already, and would share its state; "
                    "close its scope before opening it again."
                )
            shared = self.claims & getattr(other, "claims", frozenset())
            if shared:
                names = f"{type(self).__name__} and {type(other).__name__}"
                raise HeadscopeError(
                    f"{names} both decide {_WHAT[min(shared)]}; close the scope of one before "
                    "opening the other's."
                )

    def _finite(self, attention: Attention, attend: Attend) -> Attended:
        attended = self.attend(attention, attend)
        if not bool(attended.z.isfinite().all()):
            raise HeadscopeError(
                f"{type(self).__name__} made values in layer {attention.layer} that are not "
                "finite numbers; use smaller factors."
            )
        return attended

    def reorder(self, run: Run, index: Int[Tensor, " new_batch"]) -> None:
        raise HeadscopeError(
            f"{type(self).__name__} keeps state for each sequence and cannot follow beam search; "
            "generate with num_beams=1."
        )

    def crop(self, run: Run, length: int) -> None:
        raise HeadscopeError(
            f"{type(self).__name__} keeps state for each token and cannot take tokens back; "
            "generate without an assistant or prompt lookup."
        )


_WHAT: dict[Claim, str] = {
    "cache": "which keys are kept",
    "positions": "how positions are encoded",
    "logits": "what the next token is drawn from",
}
