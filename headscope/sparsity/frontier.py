"""Quality against cost: planned profiles beside those by a score, uniform ones and random ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.evals.evaluate import chosen_evals, evaluate
from headscope.evals.evaluation import Evaluation
from headscope.evals.measured import Progress, items_of
from headscope.interventions.sparse_attention import SparseAttention
from headscope.kept import Kept
from headscope.model import HeadModel, check_opened
from headscope.patterns.rules import Rule
from headscope.patterns.streaming import Streaming
from headscope.sparsity import frontier_tables
from headscope.sparsity.budget import Budget
from headscope.sparsity.candidates import SINK
from headscope.sparsity.planned import Granularity, Plan
from headscope.sparsity.planner import fixed_share, plan, plan_by_score
from headscope.sparsity.profile import ProfiledModel, SparseProfile
from headscope.sparsity.recalls import Loss, Over, Recalls

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.viz.chart import Chart

SCHEMA = 1
MOST_RANDOMS = 99
Made = Literal["planner", "score", "uniform", "random"]


class Point(BaseModel):
    """One profile that was evaluated.

    Attributes:
        name: "planner", the score, "uniform" or "random".
        budget: the share that it was made for.
        share: what it takes of that, the mean over lengths.
        condition: its place among the conditions of the evaluation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    made: Made
    budget: float
    share: float
    condition: int = Field(ge=1)
    profile: SparseProfile


class Pareto(Kept):
    """Profiles of several budgets on the questions of some evals, beside the whole model.

    Attributes:
        budget_kind: what is counted: "density" or "kv".
        lengths: tokens, at which budgets are met.
        score: what the profiles by score go by; None without any.
        evaluation: all answers; its first condition is the model without a profile.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    again: ClassVar[str] = "measure it again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["pareto"] = "pareto"
    budget_kind: Literal["density", "kv"]
    granularity: Granularity
    lengths: tuple[int, ...] = Field(min_length=1)
    loss: Loss
    score: str | None
    points: tuple[Point, ...] = Field(min_length=1)
    evaluation: Evaluation

    @model_validator(mode="after")
    def _whole(self) -> "Pareto":
        places = [point.condition for point in self.points]
        if places != list(range(1, len(self.evaluation.conditions))):
            raise ValueError("its profiles are not the conditions of its evaluation")
        return self

    @property
    def budgets(self) -> list[float]:
        """Ascending."""
        return sorted({point.budget for point in self.points})

    def of(self, budget: float, made: Made) -> list[Point]:
        """The profiles of a budget and a kind; of random ones there are many."""
        return [each for each in self.points if (each.budget, each.made) == (budget, made)]

    def table(self, task: int = 0) -> pd.DataFrame:
        """One row for each budget and kind of profile of one eval; random ones together.

        Columns: budget, profile, profiles (how many), share (of what the budget counts); exact, the
        share of right answers; of_dense, exact as a share of that of the whole model, with the
        paired interval of the difference over it; change, nats from the whole model, with its
        paired bootstrap interval. Of random ones these are means, and the least and the most of
        them instead of intervals. Running text has no right answers, and a whole model that has
        none no share of them: those are NaN.
        """
        return frontier_tables.table(self, task)

    def differences(self, task: int = 0) -> pd.DataFrame:
        """One row for each budget and other kind of profile: planner less other, on the same
        questions.

        Columns: budget, other; exact with the interval of paired proportions and value, in nats,
        with a paired bootstrap interval; p of the value by sign flips. Beside random profiles: less
        their mean, with two-way bootstrap intervals over questions and profiles, `rank`, how many
        of them do at least as well, and p = (1 + rank) / (1 + profiles). Both kinds of p are
        corrected over budgets and others, each kind apart (Holm), and times the number of evals.
        """
        return frontier_tables.differences(self, task)

    def claims(self) -> list[str]:
        """One sentence for each eval, budget and other kind of profile."""
        return [
            sentence
            for task in range(len(self.evaluation.tasks))
            for sentence in frontier_tables.claims(self, task)
        ]

    def chart(self) -> "Chart":
        """Quality against cost, a panel for each eval.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import pareto

        return pareto(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import pareto_repr

        return pareto_repr(self)


def pareto(
    model: HeadModel,
    head_map: "HeadMap | None",
    recalls: Recalls,
    budgets: Sequence[float | str | Budget] = (0.3, 0.5, 0.7),
    tasks: Sequence[str | Eval] = ("needle",),
    *,
    randoms: int = 19,
    score: str = "duo_gate",
    rule: Rule | None = None,
    loss: Loss | None = None,
    over: Over = "mean",
    granularity: Granularity = "kv_head",
    lengths: Sequence[int] | None = None,
    samples: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Pareto:
    """Evaluate profiles of equal cost: is a planned one better than simpler ones, and than chance?

    At each budget: the plan; the heads that a score speaks for left whole and the others given one
    streaming rule, as in DuoAttention (Xiao et al. 2024, arXiv 2410.10819); the same streaming rule
    for every head, with a sink of 4 tokens and the widest window that the budget allows; and random
    profiles, in which the rules of the plan are dealt to other KV heads (or query heads), so that
    they take exactly what it takes.

    Args:
        head_map: with the score; without a map there are no profiles by score.
        budgets: of density or KV bytes, all of one kind.
        tasks: evals; those that are named have the lengths that recalls were measured at.
        randoms: random profiles of each budget; 19 allow p = 0.05.
        rule: of profiles by score; see `plan_by_score`.
        loss, over, granularity: see `plan`.
        lengths, samples: of the evals' prompts.
        seed: of questions, random profiles and intervals.
        out: a file for the result; the evaluation is saved beside it after every question, and goes
            on there where it was cut off.
        progress: called with (eval, questions done, questions in all).

    Raises:
        HeadscopeError: as `plan`, `plan_by_score` and `evaluate`; the recalls are another model's,
            or were measured on questions of the evals.
    """
    check_opened(model)
    wanted = [Budget.of(budget) for budget in budgets]
    _check(model, recalls, wanted, randoms)
    given = tuple(recalls.lengths) if lengths is None else tuple(lengths)
    named = any(isinstance(task, str) for task in tasks)
    chosen = chosen_evals(
        list(tasks), given if named or lengths is not None else None, samples, seed
    )
    _check_disjoint(model, recalls, chosen)
    points: list[Point] = []
    for budget in wanted:
        planned = plan(recalls, budget, granularity=granularity, loss=loss, over=over)
        made: list[tuple[Made, str, float, SparseProfile]] = []
        made.append(("planner", "planner", _share(planned), planned.profile))
        if head_map is not None:
            by = plan_by_score(
                head_map, score, budget, lengths=recalls.lengths, rule=rule, seed=seed,
                granularity=granularity, d_head=model.d_head,
            )  # fmt: skip
            made.append(("score", score, _share(by), by.profile))
        even = _uniform(recalls.model, budget, recalls.lengths)
        made.append(("uniform", "uniform", *even))
        for drawn in _shuffled(planned, randoms, seed):
            made.append(("random", "random", _share(planned), drawn))
        for kind, name, share, profile in made:
            points.append(
                Point(
                    name=name,
                    made=kind,
                    budget=budget.share,
                    share=share,
                    condition=len(points) + 1,
                    profile=profile,
                )
            )
    path = None if out is None else Path(out)
    changes = {_label(point, wanted[0]): SparseAttention(point.profile) for point in points}
    evaluation = evaluate(
        model,
        chosen,
        changes=changes,
        seed=seed,
        out=None if path is None else path.with_name(f"{path.stem}-answers.json"),
        command=command,
        progress=progress,
    )
    found = Pareto(
        budget_kind="kv" if wanted[0].kind == "kv" else "density",
        granularity=granularity,
        lengths=recalls.lengths,
        loss=recalls.best_loss if loss is None else loss,
        score=None if head_map is None else score,
        points=tuple(points),
        evaluation=evaluation,
    )
    if path is not None:
        found.save(path)
    return found


def _check(model: HeadModel, recalls: Recalls, budgets: Sequence[Budget], randoms: int) -> None:
    if recalls.model != ProfiledModel.of(model):
        raise HeadscopeError(
            f"The recalls were measured on {recalls.model.name}, another model or other weights "
            f"than {model.name}; measure them on this one."
        )
    if not budgets or len({budget.share for budget in budgets}) < len(budgets):
        raise HeadscopeError("Give one budget or several, each once.")
    if len({budget.kind for budget in budgets}) > 1 or budgets[0].kind == "latency":
        raise HeadscopeError("The budgets of a comparison are all of density or all of KV bytes.")
    if not 0 <= randoms <= MOST_RANDOMS:
        raise HeadscopeError(
            f"Take 0 to {MOST_RANDOMS} random profiles of each budget (19 allow p = 0.05), not "
            f"{randoms}."
        )


def _check_disjoint(model: HeadModel, recalls: Recalls, tasks: Sequence[Eval]) -> None:
    known = set(recalls.about.digests)
    for task in tasks:
        if any(item.prompt.digest in known for item in items_of(model, task)):
            raise HeadscopeError(
                f"Questions of {task.title!r} would both make the plan and test it; measure "
                "recalls on prompts of another split or seed."
            )


def _share(planned: Plan) -> float:
    return float(np.mean([each.budget for each in planned.taken]))


def _uniform(
    model: ProfiledModel, budget: Budget, lengths: Sequence[int]
) -> tuple[float, SparseProfile]:
    """What it takes, and the widest window for all heads that the budget allows."""

    def taken(window: int) -> list[float]:
        return [fixed_share(Streaming(SINK, window), n, budget) for n in lengths]

    low, high = 0, max(lengths) + 1  # so wide it fits, so wide it does not, or sees everything
    while high - low > 1:
        middle = (low + high) // 2
        fits = max(taken(middle)) <= budget.share + 1e-12
        low, high = (middle, high) if fits else (low, middle)
    if low == 0:
        raise HeadscopeError(
            f"A sink of {SINK} tokens and a window of one take {max(taken(1)):.3g} of the "
            f"{budget.words}, more than a budget of {budget.share:g}; raise it."
        )
    profile = SparseProfile.of(
        model, {}, rest=Streaming(SINK, low), notes={"uniform": budget.label}
    )
    return float(np.mean(taken(low))), profile


def _shuffled(planned: Plan, count: int, seed: int) -> list[SparseProfile]:
    """The rules of a plan, dealt to its units at random."""
    profile = planned.profile
    group = profile.model.group if planned.granularity == "kv_head" else 1
    rules = [rule for layer in profile.model.layers for rule in profile.of_layer(layer)[::group]]
    found = []
    for index in range(count):
        order = np.random.default_rng((seed, index)).permutation(len(rules))
        dealt = [rules[place] for place in order for _ in range(group)]
        width = profile.model.n_heads
        grid = [dealt[start : start + width] for start in range(0, len(dealt), width)]
        notes = {"shuffled": index, "seed": seed}
        found.append(SparseProfile.of(profile.model, grid, notes=notes))
    return found


def _label(point: Point, budget: Budget) -> str:
    number = f" #{point.condition}" if point.made == "random" else ""
    return f"{point.name} at {budget.kind}={point.budget:g}{number}"
