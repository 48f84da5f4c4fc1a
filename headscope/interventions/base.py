"""Interventions: methods that change what heads do, for the length of a scope."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.registry import Registered
from headscope.run import Run
from headscope.stack import Attend, Life

if TYPE_CHECKING:
    from headscope.model import HeadModel

Site = Literal["prompt", "attention", "cache", "logits"]


@dataclass(frozen=True)
class Intervention(Registered, Life, ABC):
    """A recipe; `with intervention(model):` opens a scope in which it acts.

    Subclasses are frozen dataclasses whose fields are the method's parameters. What they learn
    about a sequence goes into `attention.run.state[self]`, never into the dataclass.
    """

    registry: ClassVar[dict[str, "type[Intervention]"]] = {}
    site: ClassVar[Site] = "attention"
    causal: ClassVar[bool] = True  # one full forward pass equals prefill and decode
    stateful: ClassVar[bool] = False  # keeps something between layers or steps

    @abstractmethod
    def attend(self, attention: Attention, attend: Attend) -> Attended:
        """Stand around one layer's attention: pass on a changed one, or edit what comes back."""

    def check(self, model: "HeadModel") -> None:
        """Refuse a model that the method's parameters do not fit, before anything is changed."""

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        """Parameters with those that a method has to measure on a model beforehand."""
        return options

    @property
    def reads_prompt_alike(self) -> bool:
        """Whether a prompt's keys, but its last token's, are what they are without the method.

        Then one prefill serves many conditions; False is always safe.
        """
        return False

    @contextmanager
    def __call__(self, model: "HeadModel") -> Iterator["HeadModel"]:
        self.check(model)
        with model.entered(self.attend, self if self.stateful else None):
            yield model

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
