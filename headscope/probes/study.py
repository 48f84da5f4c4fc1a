"""Probes that need all of their prompts at once: they train, differentiate, or read weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Cost, Probe
from headscope.prompts.base import Prompt

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bill:
    """What a study costs, in passes over a model.

    Attributes:
        forward, backward: how many passes over one prompt each.
        tokens: in a prompt, on average.
        also: what else takes long or much memory, in a few words; empty for nothing.
    """

    forward: int
    backward: int
    tokens: int
    also: str = ""

    def seconds(self, one_forward: float) -> float:
        """An estimate from the seconds of one forward pass; a backward pass takes about two."""
        return (self.forward + 2 * self.backward) * one_forward

    def __str__(self) -> str:
        passes = f"{self.forward} passes forward and {self.backward} backward"
        also = f", and {self.also}" if self.also else ""
        return f"{passes} over {self.tokens} tokens each{also}"


def mean_tokens(prompts: Sequence[Prompt], answered: bool = False) -> int:
    """Tokens of a pass over one of the prompts, on average.

    Args:
        answered: whether their answers are read too, all but the last token.
    """
    more = [len(prompt.answer_ids) - 1 if answered else 0 for prompt in prompts]
    return round((sum(map(len, prompts)) + sum(more)) / len(prompts))


class Work:
    """Where a study tells how far it is, and keeps what it would not do twice.

    Without a folder nothing is kept.
    """

    def __init__(
        self,
        folder: Path | None = None,
        key: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._folder, self._key, self._progress = folder, key, progress

    def at(self, done: int, total: int) -> None:
        """Say that `done` of `total` steps are over."""
        if self._progress is not None:
            self._progress(done, total)

    def kept(self, name: str) -> Arrays | None:
        """What was kept under a name, by this study or where it was cut off before.

        Raises:
            HeadscopeError: the file is damaged.
        """
        path = self._path(name)
        return storage.read_arrays(path) if path is not None and path.exists() else None

    def keep(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under a name in one step, in the place of what was there."""
        path = self._path(name)
        if path is not None:
            storage.write_arrays(path, arrays)

    def each(self, total: int, make: Callable[[int], Mapping[str, np.ndarray]]) -> list[Arrays]:
        """What a function makes of 0, 1, ..., total - 1, each made once and kept."""
        found: list[Arrays] = []
        for index in range(total):
            self.at(index, total)
            part = self.kept(str(index))
            if part is None:
                part = dict(make(index))
                self.keep(str(index), part)
            found.append(part)
        self.at(total, total)
        return found

    def _path(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / "partial" / f"{self._key}-{name}.safetensors"


@dataclass(frozen=True)
class _Study(Probe, ABC):
    """A probe that takes long, and works on all of its prompts together.

    `study` is the function to write, and `bill` says beforehand what it will cost. `scan` leaves
    studies out of "all" probes unless it is told to train.
    """

    alters: ClassVar[bool] = True
    training: ClassVar[bool] = True
    cost: ClassVar[Cost] = "training"
    answers: ClassVar[str] = ""  # what it does with the answers of prompts, if it reads them

    @abstractmethod
    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        """Scores of all heads by name, one row for each thing that the mean is taken over.

        Curves are [row, layer, head, point]. Gradients are off when it is called. A study that
        is interrupted and called again with the same work goes on from what it kept.

        Raises:
            HeadscopeError: nothing can be made of these prompts, or a loss is no number or does
                not fall.
        """

    @abstractmethod
    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        """What the study costs."""

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if self.answers and not prompt.answer_ids:
            raise HeadscopeError(
                f"the probe {self.name!r} {self.answers}, and a prompt has no 'answer'; give it "
                "one, or leave the probe out."
            )

    def check_prompts(self, model: HeadModel, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that the study cannot work with together, such as too few of them.

        Raises:
            HeadscopeError: it names the probe and says what is missing.
        """


def check_loss(probe: str, losses: Sequence[float], what: str, do: str, fall: bool = True) -> None:
    """Refuse a training that leads nowhere.

    Args:
        losses: one for each step so far, in order.
        what: of which loss, for the sentence: "the distillation loss of gates".
        do: what to do about it: "use a smaller lr".
        fall: whether the last tenth of the losses has to be below the first tenth on average.

    Raises:
        HeadscopeError: the last loss is no number, or losses did not fall.
    """
    if not np.isfinite(losses[-1]):
        raise HeadscopeError(
            f"The probe {probe!r} stops at step {len(losses)}: {what} is {losses[-1]}; {do}. What "
            "was measured before is kept."
        )
    part = max(1, len(losses) // 10)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    if fall and not last < first:
        raise HeadscopeError(
            f"The probe {probe!r} stops: {what} does not fall ({first:.4g} over the first steps, "
            f"{last:.4g} over the last of {len(losses)}); {do}. What was measured before is kept."
        )
