"""What methods share that change the prompt and nothing of the model."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from headscope.errors import HeadscopeError
from headscope.interventions.base import Intervention, Phase, Site
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _Rewriting(Intervention):
    """A method that gives the model another prompt; a subclass says which, in `rewritten`."""

    site: ClassVar[Site] = "prompt"
    phase: ClassVar[Phase] = "prefill"

    @abstractmethod
    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        """The prompt as this method would have it, its spans moved with their tokens.

        Raises:
            HeadscopeError: the prompt lacks the spans that the method works on.
        """

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple[Intervention, Prompt]:
        return self, self.rewritten(model, prompt)

    @contextmanager
    def __call__(self, model: "HeadModel") -> Iterator["HeadModel"]:
        """There is no scope: a prompt is rewritten before the model reads it."""
        raise HeadscopeError(
            f"{type(self).__name__} changes the prompt, not the model; read "
            "method.rewritten(model, prompt) instead of opening a scope."
        )
        yield model


def rebuilt(prompt: Prompt, pieces: Sequence[Range]) -> Prompt:
    """A prompt made of ranges of its own tokens, in a new order or with some left out.

    A span moves with its tokens where all of them are kept and still stand together, in whatever
    order; a span that was cut or torn apart is dropped.

    Args:
        pieces: disjoint half-open ranges of tokens, in the order of the new prompt.

    Raises:
        HeadscopeError: nothing is left.
    """
    order = [i for start, stop in pieces for i in range(start, stop)]
    if not order:
        raise HeadscopeError("Nothing of the prompt would be left; keep more of it.")
    place = {old: new for new, old in enumerate(order)}
    spans: dict[str, Range] = {}
    for name, (start, stop) in prompt.spans.items():
        at = sorted(place.get(i, -1) for i in range(start, stop))
        if at and at[0] >= 0 and at[-1] - at[0] == len(at) - 1:
            spans[name] = (at[0], at[-1] + 1)
    return replace(prompt, token_ids=tuple(prompt.token_ids[i] for i in order), spans=spans)


def single_token(model: "HeadModel", token: str | int, whose: str) -> int:
    """A token given by its id or by a text that is just it.

    Raises:
        HeadscopeError: the model has no such token, or the text is several.
    """
    if not isinstance(token, str):
        if not isinstance(token, int) or not 0 <= token < model.vocab_size:
            raise HeadscopeError(
                f"{whose} cannot use {token!r} for a token: {model.name} has the tokens 0 to "
                f"{model.vocab_size - 1}."
            )
        return token
    ids = model.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise HeadscopeError(
            f"{whose} needs a text that is one token, and {token!r} is {len(ids)}; give another "
            "text, or a token's id."
        )
    return int(ids[0])
