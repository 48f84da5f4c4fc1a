"""Evals on a model as it is, and as it is changed."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

from headscope.catalog import evals
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.describing import described
from headscope.evals.evaluation import Change, Evaluation
from headscope.evals.measured import Measured, Progress, go_through, items_of
from headscope.evals.prefix import Prefix
from headscope.evals.scoring import Scored, scored
from headscope.evals.statistics import check_enough
from headscope.interventions.base import Intervention
from headscope.model import HeadModel, check_opened
from headscope.registry import find
from headscope.runinfo import versions

Changes = Mapping[str, Intervention | Sequence[Intervention]]


def evaluate(
    model: HeadModel,
    tasks: Sequence[str | Eval] | Literal["all"],
    *,
    lengths: Sequence[int] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    changes: Changes | None = None,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Evaluation:
    """Ask a model the questions of some evals, once as it is and once under each change.

    Args:
        tasks: names, or evals with parameters of one's own; "all" for every one.
        lengths: of the prompts in tokens, instead of each eval's own.
        samples: questions of each eval.
        seed: of the questions and the intervals; each eval's own, and 0, if left out.
        changes: interventions by a name of one's own; of several for a name all are in force.
        out: a file to save to after every question; an evaluation that was cut off goes on.
        command: what to run again to go on, for messages.
        progress: called with (eval, questions done, questions in all).

    Raises:
        HeadscopeError: no such eval, prompts that do not fit, fewer questions than an interval
            needs, or `out` holds another evaluation.
    """
    check_opened(model)
    changes = dict(changes or {})
    methods = [_methods(change) for change in changes.values()]
    for method in (method for each in methods for method in each):
        method.check(model)
    chosen = chosen_evals(tasks, lengths, samples, seed)
    questions = [items_of(model, task) for task in chosen]
    for items in questions:
        check_enough(len(items), 0.95)
    conditions = [Change(label="base")]
    for name, each in zip(changes, methods, strict=True):
        conditions.append(Change(label=name, method=" & ".join(map(described, each))))
    result = Evaluation(
        model=model.name,
        fingerprint=model.fingerprint,
        seed=seed or 0,
        conditions=conditions,
        tasks=[
            Measured.of(task, items, len(conditions))
            for task, items in zip(chosen, questions, strict=True)
        ],
        versions=versions(),
        command=command,
    )
    path = None if out is None else Path(out)
    result = result.continued(path)
    for measured, items in zip(result.tasks, questions, strict=True):
        go_through(result, measured, items, partial(_scores, model, methods), path, progress)
    return result


def chosen_evals(
    tasks: Sequence[str | Eval] | Literal["all"],
    lengths: Sequence[int] | None,
    samples: int | None,
    seed: int | None,
) -> list[Eval]:
    """The evals that were asked for, in the lengths, number and seed asked for.

    Raises:
        HeadscopeError: there is no such eval, one is there twice, or a number is no count.
    """
    known = evals()
    if tasks == "all":
        tasks = [name for name in known if name != "own"]  # which needs a file
    wanted = [tasks] if isinstance(tasks, str | Eval) else list(tasks)
    if not wanted:
        raise HeadscopeError("Name at least one eval, or 'all'.")
    if samples is not None and samples < 1:
        raise HeadscopeError(f"An eval needs at least one question, not {samples}.")
    given: dict[str, Any] = {"samples": samples, "seed": seed}
    given["lengths"] = None if lengths is None else tuple(lengths)
    set_ = {name: value for name, value in given.items() if value is not None}
    found = [
        dataclasses.replace(find(known, t, "eval")() if isinstance(t, str) else t, **set_)
        for t in wanted
    ]
    names = [task.name for task in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise HeadscopeError(f"The eval {twice!r} is there twice; evaluate twice.")
    return found


def _methods(change: Any) -> list[Intervention]:
    methods = [change] if isinstance(change, Intervention) else list(change)
    for method in methods:
        if not isinstance(method, Intervention):
            raise HeadscopeError(f"A change is an intervention or several, not {method!r}.")
    return methods


def _scores(
    model: HeadModel, methods: Sequence[Sequence[Intervention]], item: Item
) -> list[Scored]:
    ready = [_prepared(model, each, item) for each in methods]
    alike = [
        asked.prompt == item.prompt and all(method.reads_prompt_alike for method in each)
        for each, asked in ready
    ]
    # One prefill for all that read the prompt as it is read without them.
    prefix = Prefix.of(model, item.prompt) if any(alike) and not item.chunk else None
    found = scored(model, item, None, prefix)
    for (each, asked), same in zip(ready, alike, strict=True):
        with ExitStack() as scopes:
            for method in each:
                scopes.enter_context(method(model))
            found += scored(model, asked, None, prefix if same else None)
    return found


def _prepared(
    model: HeadModel, methods: Sequence[Intervention], item: Item
) -> tuple[list[Intervention], Item]:
    """The methods that have a scope, and the question as they would have it put and read."""
    scopes: list[Intervention] = []
    prompt = item.prompt
    # A span's place is known only once the prompt has its last form.
    for method in sorted(methods, key=lambda method: method.site != "prompt"):
        bound, prompt = method.prepared(model, prompt)
        if bound.site != "prompt":
            scopes.append(bound)
    model.check_prompt(prompt)
    chunk = item.chunk or int(any(method.stepwise for method in scopes))
    return scopes, dataclasses.replace(item, prompt=prompt, chunk=chunk)
