"""What one eval gave under several conditions: kept question by question."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, model_validator

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item, Metric
from headscope.evals.scoring import Scored
from headscope.kept import Resumed
from headscope.model import HeadModel

Progress = Callable[[str, int, int], None]  # eval, questions done, questions in all

# What a change is measured in, for each metric.
UNITS: dict[Metric, str] = {
    "answer": "log-probability of the answer",
    "choice": "margin of the right answers over the wrong",
    "tokens": "log-probability of a token",
}


class Scores(BaseModel):
    """One condition on every question: nats of the answer, exact match, margin of a choice."""

    model_config = ConfigDict(extra="forbid")

    logp: list[float] = []
    exact: list[bool] = []
    margin: list[float] = []
    curve: list[list[float]] = []

    def add(self, score: Scored) -> None:
        self.logp.append(score.logp)
        self.exact.append(score.exact)
        if score.margin is not None:
            self.margin.append(score.margin)
        if score.curve:
            self.curve.append(list(score.curve))


class Measured(BaseModel):
    """An eval, its questions, and what each condition scored on them."""

    model_config = ConfigDict(extra="forbid")

    task: str
    metric: Metric
    parameters: dict[str, Any]
    digests: list[str]
    facts: list[dict[str, int | float | str]]
    tokens: list[int]  # counted tokens of each answer
    chance: float  # how often a guess is right
    scores: list[Scores]

    @model_validator(mode="after")
    def _whole(self) -> "Measured":
        n = len(self.digests)
        if not (len(self.facts) == len(self.tokens) == n and n):
            raise ValueError("its questions do not match what is known of them")
        lengths = {len(values) for s in self.scores for values in (s.logp, s.exact)}
        if len(lengths) != 1 or max(lengths) > n:
            raise ValueError("its conditions were not measured on the same questions")
        margins = {len(s.margin) for s in self.scores}
        if margins != (lengths if self.metric == "choice" else {0}):
            raise ValueError("its margins do not fit its metric")
        return self

    @classmethod
    def of(cls, task: Eval, items: Sequence[Item], conditions: int) -> "Measured":
        """Nothing measured yet."""
        return cls(
            task=task.title,
            metric=task.metric,
            parameters=json.loads(json.dumps(dataclasses.asdict(task))),
            digests=[digest(item) for item in items],
            facts=[dict(item.prompt.facts) for item in items],
            tokens=[sum(item.counted) or len(item.prompt.answer_ids) for item in items],
            chance=float(np.mean([item.chance for item in items])),
            scores=[Scores() for _ in range(conditions)],
        )

    @property
    def done(self) -> int:
        """Questions measured so far."""
        return min(len(scores.logp) for scores in self.scores)

    def values(self, condition: int) -> Float[np.ndarray, " question"]:
        """What the metric measures first, in nats: see `UNITS`."""
        scores = self.scores[condition]
        if self.metric == "choice":
            return np.array(scores.margin)
        logp = np.array(scores.logp)
        return logp / np.array(self.tokens[: len(logp)]) if self.metric == "tokens" else logp

    def per_token(self, condition: int) -> Float[np.ndarray, " question"]:
        """Nats for each counted token of the answer, which all metrics have."""
        logp = np.array(self.scores[condition].logp)
        return logp / np.array(self.tokens[: len(logp)])

    def exact(self, condition: int) -> Bool[np.ndarray, " question"] | None:
        """Whether each answer was right; None for running text."""
        if self.metric == "tokens":
            return None
        return np.array(self.scores[condition].exact, dtype=bool)

    def add(self, scores: Sequence[Scored]) -> None:
        """One more question, under all conditions."""
        for kept, score in zip(self.scores, scores, strict=True):
            kept.add(score)


class Questioned(Resumed):
    """A result on the questions of some evals, `tasks`."""

    if TYPE_CHECKING:  # a field of each kind, in its own place: what a file lacks is told in order
        tasks: list[Measured]

    @property
    def done(self) -> int:
        """Questions measured so far, of all evals together."""
        return sum(task.done for task in self.tasks)

    @property
    def complete(self) -> bool:
        """Whether every question was measured."""
        return all(task.done == len(task.digests) for task in self.tasks)


def go_through(
    result: Resumed,
    measured: Measured,
    items: Sequence[Item],
    scores: Callable[[Item], Sequence[Scored]],
    path: Path | None,
    progress: Progress | None,
) -> None:
    """Measure the questions that are not measured yet, and save the result after each.

    Args:
        measured: a part of the result.
        scores: of a question under all conditions.
    """
    for index in range(measured.done, len(items)):
        if progress is not None:
            progress(measured.task, index, len(items))
        measured.add(scores(items[index]))
        if path is not None:
            result.save(path)
    if progress is not None:
        progress(measured.task, len(items), len(items))


def digest(item: Item) -> str:
    """SHA-256 of all that a score depends on."""
    from hashlib import sha256

    rest = (item.counted, item.wrong, item.right, item.chunk, item.buckets)
    return sha256(repr((item.prompt.digest, rest)).encode()).hexdigest()


def items_of(model: HeadModel, task: Eval) -> list[Item]:
    """The questions of an eval, checked.

    Raises:
        HeadscopeError: as `made_items` and `check_items`.
    """
    items = made_items(model, task)
    check_items(model, task, items)
    return items


def made_items(model: HeadModel, task: Eval) -> list[Item]:
    """The questions of an eval, refused before they are made where they could not fit.

    Raises:
        HeadscopeError: they are longer than the context, or cannot be made.
    """
    longest = max(task.lengths, default=0)
    if longest > model.context_length:
        raise HeadscopeError(
            f"Prompts of {longest} tokens do not fit into the {model.context_length} that "
            f"{model.spec} was made for; ask {task.title!r} for shorter ones."
        )
    return task.items(model.tokenizer)


def check_items(model: HeadModel, task: Eval, items: Sequence[Item]) -> None:
    """Refuse an eval before any of it is measured.

    Raises:
        HeadscopeError: there is no question, one does not fit into the model, or has no answer.
    """
    if not items:
        raise HeadscopeError(f"The eval {task.title!r} has no question; ask for at least one.")
    for index, item in enumerate(items):
        where = f"Question {index + 1} of {task.title}"
        try:
            model.check_prompt(item.prompt)
        except HeadscopeError as error:
            raise HeadscopeError(f"{where}: {error}") from error
        if not item.prompt.answer_ids:
            raise HeadscopeError(
                f"{where} expects no answer, so that none can be scored; give its 'answer'."
            )
        if (task.metric == "choice") != bool(item.wrong):
            there = "no" if task.metric == "choice" else "some"
            raise HeadscopeError(
                f"{where} has {there} other answers to choose from, which does not fit the metric "
                f"{task.metric!r} of its eval."
            )
