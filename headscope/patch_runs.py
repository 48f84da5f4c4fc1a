"""Clean and corrupt prompts side by side, and the runs in which one is patched by the other."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item, TokenIds
from headscope.evals.measured import items_of
from headscope.evals.prefix import Prefix
from headscope.evals.scoring import rows_at_once, scored
from headscope.model import HeadModel
from headscope.patched import Direction
from headscope.prompts.base import Prompt

Scope = Callable[[slice], AbstractContextManager[object]]  # around a pass over some of the rows
Said = Mapping[TokenIds, Float[Tensor, " row"]]  # nats of an answer


@dataclass(frozen=True)
class Pair:
    """One question and its corrupt twin, both scored on the answers of the clean one."""

    item: Item

    @cached_property
    def corrupt(self) -> Item:
        """The corrupt prompt, asked for the clean one's answers."""
        assert self.item.corrupt is not None
        return replace(
            self.item, prompt=replace(self.item.corrupt, answer_ids=self.item.prompt.answer_ids)
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all that a measurement on this pair depends on."""
        prompts = [item.prompt.token_ids for item in (self.item, self.corrupt)]
        content = (prompts, self.item.prompt.answer_ids, self.item.right, self.item.wrong)
        return sha256(repr(content).encode()).hexdigest()

    @property
    def shared(self) -> int:
        """Tokens at the start that are the same in both, the last one left out."""
        clean, corrupt = (item.prompt.token_ids for item in (self.item, self.corrupt))
        differs = (i for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b)
        return min(next(differs, len(clean)), len(clean) - 1)

    @property
    def answers(self) -> tuple[TokenIds, ...]:
        """All answers that are scored, the right one first."""
        return (self.item.prompt.answer_ids, *self.item.right, *self.item.wrong)

    @property
    def feeds(self) -> list[TokenIds]:
        """What has to be read behind a prompt to foretell the last token of every answer."""
        return list(dict.fromkeys(answer[:-1] for answer in self.answers))

    def gap(self, model: HeadModel) -> tuple[float, float]:
        """Margin of the right over the wrong answers on the clean and on the corrupt prompt."""
        clean, corrupt = (scored(model, item)[0].margin for item in (self.item, self.corrupt))
        assert clean is not None
        assert corrupt is not None
        return clean, corrupt

    def margins(self, said: Said) -> Float[Tensor, " row"]:
        """Log of the probability of all right answers less that of all wrong ones, in nats."""
        right = torch.stack([said[a] for a in (self.item.prompt.answer_ids, *self.item.right)])
        wrong = torch.stack([said[a] for a in self.item.wrong])
        return right.logsumexp(0) - wrong.logsumexp(0)

    def lanes(self, model: HeadModel, direction: Direction) -> list["Lane"]:
        """The runs to be patched: one for all answers that differ in their last token alone."""
        clean, corrupt = (item.prompt.token_ids for item in (self.item, self.corrupt))
        base, source = (clean, corrupt) if direction == "noising" else (corrupt, clean)
        # No head says anything else before the first token that differs: that is read once.
        shared = self.shared
        prefix = Prefix.of(model, Prompt(base[: shared + 1]))
        return [
            Lane(
                (*base, *feed),
                (*source, *feed),
                shared,
                prefix,
                tuple(a for a in self.answers if a[:-1] == feed),
            )
            for feed in self.feeds
        ]


@dataclass(frozen=True, eq=False)
class Lane:
    """A run that is patched, and the one that it is patched from, read up to the last token but one
    of some answers.

    Attributes:
        shared: tokens at the start that are the same in both.
        prefix: those tokens, read beforehand.
    """

    base: TokenIds
    source: TokenIds
    shared: int
    prefix: Prefix | None
    answers: tuple[TokenIds, ...]

    @torch.no_grad()
    def said(self, model: HeadModel, rows: int, scope: Scope) -> dict[TokenIds, Tensor]:
        """Nats of the answers in many changed runs of the base.

        Args:
            rows: how many runs.
            scope: opens the change of some of them around one pass.
        """
        ids = torch.tensor(self.base[self.shared :])
        last = len(self.answers[0])
        step = rows_at_once(model, len(ids))
        found: dict[TokenIds, list[Tensor]] = {answer: [] for answer in self.answers}
        for start in range(0, rows, step):
            some = slice(start, min(start + step, rows))
            cache = None if self.prefix is None else self.prefix.fork()
            with scope(some):
                logits = model.forward(
                    ids.expand(some.stop - some.start, -1), cache=cache, last=last
                )
            logp = logits.float().log_softmax(-1)
            for answer, kept in found.items():
                want = torch.tensor(answer, device=logp.device).expand(len(logp), -1)
                kept.append(logp.gather(-1, want[..., None])[..., 0].sum(-1).cpu())
        return {answer: torch.cat(kept) for answer, kept in found.items()}


def pairs_of(model: HeadModel, task: Eval) -> list[Pair]:
    """All pairs of an eval.

    Raises:
        HeadscopeError: it makes none, they differ in length, or do not fit into the model.
    """
    if task.metric != "choice":
        raise HeadscopeError(
            f"Patching compares right answers with wrong ones, and {task.name!r} has no wrong "
            "ones; use an eval with clean and corrupt pairs, such as 'ioi'."
        )
    items = items_of(model, task)
    for item in items:
        if item.corrupt is None:
            raise HeadscopeError(
                f"The eval {task.name!r} has no corrupt prompts to patch from; use one with pairs, "
                "such as 'ioi'."
            )
        if len(item.corrupt) != len(item.prompt):
            raise HeadscopeError(
                f"A clean prompt of {task.name} has {len(item.prompt)} tokens and its corrupt one "
                f"{len(item.corrupt)}; patching needs pairs of the same length."
            )
    return [Pair(item) for item in items]


def chosen(task: Eval, samples: int | None) -> Eval:
    """A task with as many pairs as asked for."""
    if samples is None:
        return task
    if samples < 1:
        raise HeadscopeError(f"Patching needs at least one pair, not {samples}.")
    return replace(task, samples=samples)
