"""What pruning heads in several orders did to some evals: curves, areas and sentences."""

from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator

from headscope.errors import HeadscopeError
from headscope.evals.gates import gate, mean_interval
from headscope.evals.measured import UNITS, Measured
from headscope.evals.multiplicity import holm
from headscope.evals.statistics import (
    empirical_p,
    paired_proportions,
    sign_flip_p,
    two_way_bootstrap,
    wilson,
)
from headscope.heads import Head
from headscope.kept import Resumed

SCHEMA = 1
LEVEL = 0.05
Kind = Literal["gradient", "score", "random"]
Measure = Literal["exact", "value"]
Curve = Float[np.ndarray, "step question"]
MEASURES: tuple[Measure, ...] = ("exact", "value")


class Order(BaseModel):
    """Heads in the order in which they are pruned, the first to go first.

    Of an order that is still being chosen, those that were chosen so far.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    kind: Kind
    heads: list[tuple[int, int]] = []

    @model_validator(mode="after")
    def _once(self) -> "Order":
        if len(set(self.heads)) != len(self.heads):
            raise ValueError("a head is pruned twice")
        return self


class Pruning(Resumed):
    """Evals on a model that lost more and more heads, in several orders, on the same questions.

    The first condition of each eval is the whole model; order i at step s is condition
    1 + i · steps + s. An area is that under a curve over the share of pruned heads, from 0 to the
    last step, divided by its width: the mean height of the curve, by the trapezoidal rule.

    Attributes:
        total: heads of the model.
        counts: how many of them are pruned at each step.
        selection: digests of the prompts by which gradient orders were chosen.
    """

    what = "another pruning"
    again = "prune again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["pruning"] = "pruning"
    model: str
    fingerprint: str
    seed: int = Field(ge=0)
    total: int = Field(ge=1)
    counts: list[int] = Field(min_length=1)
    selection: list[str]
    orders: list[Order] = Field(min_length=1)
    tasks: list[Measured] = Field(min_length=1)
    versions: dict[str, str]
    command: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Pruning":
        if sorted({*self.counts}) != self.counts or not 1 <= self.counts[-1] <= self.total:
            raise ValueError("its steps do not grow, or prune more heads than there are")
        chosen = {len(order.heads) for order in self.orders}
        if max(chosen) > self.counts[-1] or (self.done and chosen != {self.counts[-1]}):
            raise ValueError("its orders do not fit its steps")
        conditions = 1 + len(self.orders) * len(self.counts)
        if any(len(task.scores) != conditions for task in self.tasks):
            raise ValueError("its orders were not measured on its evals")
        return self

    def identity(self) -> Any:
        # A gradient order is found on the way: what it is found on says which it is.
        orders = [(o.name, o.kind, o.heads if o.kind != "gradient" else []) for o in self.orders]
        tasks = [(task.task, task.digests) for task in self.tasks]
        return self.fingerprint, self.seed, self.counts, self.selection, orders, tasks

    @property
    def done(self) -> int:
        """Questions measured so far, of all evals together."""
        return sum(task.done for task in self.tasks)

    @property
    def complete(self) -> bool:
        """Whether every question was measured."""
        return all(task.done == len(task.digests) for task in self.tasks)

    @property
    def shares(self) -> Float[np.ndarray, " step"]:
        """Of all heads, how many are pruned: 0, then at each step."""
        return np.array([0, *self.counts]) / self.total

    def names(self) -> list[str]:
        """The orders that are no random ones."""
        return [order.name for order in self.orders if order.kind != "random"]

    def pruned(self, order: str, count: int) -> list[Head]:
        """The first heads that an order prunes.

        Raises:
            HeadscopeError: there is no such order, or it prunes fewer heads.
        """
        for known in self.orders:
            if known.name == order and 0 <= count <= len(known.heads):
                return known.heads[:count]
        raise HeadscopeError(
            f"No order {order!r} prunes {count} heads here; there are "
            f"{', '.join(o.name for o in self.orders)}, and up to {self.counts[-1]} heads."
        )

    def conditions(self) -> list[list[Head]]:
        """The heads that are out in each condition."""
        return [[], *(order.heads[:count] for order in self.orders for count in self.counts)]

    def to_pandas(self) -> pd.DataFrame:
        """One row for each eval, order (each random one by itself) and step, 0 heads included.

        Columns: task, order, kind, pruned (heads), share (of all heads), questions, exact (share
        of right answers, NaN for running text), value (nats, see `Measured.values`).
        """
        rows = [
            {
                "task": task.task, "order": order.name, "kind": order.kind, "pruned": count,
                "share": count / self.total, "questions": task.done,
                "exact": means["exact"][step], "value": means["value"][step],
            }
            for task in self.tasks
            if task.done
            for index, order in enumerate(self.orders)
            for means in [{of: self._curve(task, index, of).mean(1) for of in MEASURES}]
            for step, count in enumerate([0, *self.counts])
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def table(self, task: int = 0) -> pd.DataFrame:
        """One row for each order and step of one eval; random orders together.

        Columns: order, orders (how many), pruned, share; exact with its Wilson interval and value
        with a bootstrap interval over questions; exact.change and change, of exact and value from
        the whole model, paired, with theirs. Of random orders these are means, and the range that
        holds 90 % of them.
        """
        measured = self._measured(task)
        rows = []
        for name, indices in self._groups():
            curves = {of: [self._curve(measured, i, of) for i in indices] for of in MEASURES}
            for step, count in enumerate(self.counts, 1):
                row: dict[str, Any] = {"order": name, "orders": len(indices), "pruned": count}
                row["share"] = count / self.total
                for of, change in zip(MEASURES, ("exact.change", "change"), strict=True):
                    now = np.stack([curve[step] for curve in curves[of]])
                    moved = now - curves[of][0][0]
                    single = name != "random"
                    row |= _spread(of, now, self._level(of, now[0]) if single else None)
                    row |= _spread(change, moved, self._shift(of, moved[0]) if single else None)
                rows.append(row)
        return pd.DataFrame(rows)

    def areas(self, task: int = 0) -> pd.DataFrame:
        """One row for each order of one eval; random orders together.

        Columns, for exact and value: the area with its bootstrap interval over questions (of random
        orders the range that holds 90 %); .beyond, it less the mean area of random orders, with a
        two-way bootstrap interval over questions and orders; .p, how often a random order has at
        least its area, not corrected for the other orders.
        """
        measured = self._measured(task)
        random = dict(self._groups()).get("random", [])
        rows = []
        for name, indices in self._groups():
            row: dict[str, Any] = {"order": name, "orders": len(indices)}
            for of in MEASURES:
                mine, others = (
                    np.stack([self._area(measured, i, of) for i in those]) if those else None
                    for those in (indices, random)
                )
                assert mine is not None
                single = name != "random"
                row |= _spread(of, mine, self._interval(mine[0]) if single else None)
                row |= self._beyond(of, mine[0], others if single else None)
            rows.append(row)
        return pd.DataFrame(rows)

    def differences(self, task: int = 0) -> pd.DataFrame:
        """One row for each two orders of one eval that are not random: areas of the first less
        those of the second.

        Columns: first, second; exact and value with paired bootstrap intervals over questions, and
        .p by sign flips, two-sided, Holm over the rows.
        """
        measured, names = self._measured(task), self.names()
        rows: list[dict[str, Any]] = []
        for one, other in combinations(range(len(names)), 2):
            row: dict[str, Any] = {"first": names[one], "second": names[other]}
            for of in MEASURES:
                gap = self._area(measured, one, of) - self._area(measured, other, of)
                row |= _spread(of, gap[None], self._interval(gap))
                known = bool(np.isfinite(gap).all())
                row[f"{of}.p"] = sign_flip_p(gap, self.seed) if known else np.nan
            rows.append(row)
        for of in MEASURES:
            p = np.array([row[f"{of}.p"] for row in rows])
            if len(p) and np.isfinite(p).all():
                for row, each in zip(rows, holm(p), strict=True):
                    row[f"{of}.p"] = float(each)
        return pd.DataFrame(rows)

    def claims(self) -> list[str]:
        """For each eval one sentence for each order, and one for each two of them."""
        return [
            sentence
            for index, task in enumerate(self.tasks)
            if task.done
            for sentence in (*self._held(index), *self._compared(index))
        ]

    def _held(self, index: int) -> list[str]:
        task, areas = self.tasks[index], self.areas(index).set_index("order")
        of, what = _said(task)
        base = self._curve(task, 0, of)[0].mean()
        right = task.exact(0)
        held = "" if right is None else gate(right, task.chance)
        note = " Right answers of the whole model stand at the floor." if held == "floor" else ""
        found = []
        for name in self.names():
            row: Any = areas.loc[name]
            against = "there are no random orders to compare it with"
            if "random" in areas.index:
                other: Any = areas.loc["random"]
                count, p = int(other["orders"]), row[f"{of}.p"]
                verdict = "more than random orders keep" if p <= LEVEL else (
                    "not significantly more than random orders keep"
                )  # fmt: skip
                if 1 / (1 + count) > LEVEL:
                    verdict = "too few random orders for a verdict"
                against = (
                    f"{count} random orders {other[of]:.2f}, a difference of "
                    f"{_number(row, f'{of}.beyond', '+')}: {verdict} (p = {p:.2g}, not corrected "
                    "for other orders)"
                )
            found.append(
                f"On {task.done} questions of {task.task}, pruning up to {self.shares[-1]:.0%} of "
                f"the heads in the order {name!r} keeps a mean {what} of {_number(row, of)}; the "
                f"whole model has {base:.2f}, {against}.{note}"
            )
        return found

    def _compared(self, index: int) -> list[str]:
        task = self.tasks[index]
        of, what = _said(task)
        found = []
        for row in self.differences(index).to_dict("records"):
            sure = row[f"{of}.p"] <= LEVEL
            found.append(
                f"On {task.done} questions of {task.task}, the mean {what} of {row['first']!r} "
                f"less that of {row['second']!r} is {_number(row, of, '+')}: "
                f"{'a difference' if sure else 'no difference that could be told from none'} "
                f"(p = {row[f'{of}.p']:.2g}, Holm over the pairs of orders)."
            )
        return found

    def _measured(self, task: int) -> Measured:
        if not self.tasks[task].done:
            raise HeadscopeError("This pruning has measured no question yet; run it first.")
        return self.tasks[task]

    def _groups(self) -> list[tuple[str, list[int]]]:
        """Orders by name, random ones together and last."""
        single = [(o.name, [i]) for i, o in enumerate(self.orders) if o.kind != "random"]
        random = [i for i, order in enumerate(self.orders) if order.kind == "random"]
        return [*single, *([("random", random)] if random else [])]

    def _curve(self, task: Measured, order: int, of: Measure) -> Curve:
        steps = len(self.counts)
        return np.stack(
            [_scores(task, c, of) for c in (0, *range(1 + order * steps, 1 + (order + 1) * steps))]
        )

    def _area(self, task: Measured, order: int, of: Measure) -> Float[np.ndarray, " question"]:
        shares = self.shares
        return np.trapezoid(self._curve(task, order, of), shares, axis=0) / shares[-1]

    def _interval(self, values: Float[np.ndarray, " question"]) -> tuple[float, float]:
        return mean_interval(values, self.seed) if np.isfinite(values).all() else (np.nan, np.nan)

    def _level(self, of: Measure, values: Float[np.ndarray, " question"]) -> tuple[float, float]:
        if of == "exact" and np.isfinite(values).all():
            return wilson(int(values.sum()), len(values))
        return self._interval(values)

    def _shift(self, of: Measure, change: Float[np.ndarray, " question"]) -> tuple[float, float]:
        if of == "exact" and np.isfinite(change).all():
            return paired_proportions(change)
        return self._interval(change)

    def _beyond(
        self,
        of: Measure,
        mine: Float[np.ndarray, " question"],
        others: Float[np.ndarray, "order question"] | None,
    ) -> dict[str, float]:
        names = (f"{of}.beyond", f"{of}.beyond.low", f"{of}.beyond.high", f"{of}.p")
        if others is None or not np.isfinite(mine).all():
            return dict.fromkeys(names, np.nan)
        low = high = np.nan
        if len(others) > 1 and not np.isnan(self._interval(mine)[0]):
            low, high = two_way_bootstrap(mine, others, self.seed)
        p = empirical_p(float(mine.mean()), others.mean(1))
        gap = float(mine.mean() - others.mean())
        return dict(zip(names, (gap, low, high, p), strict=True))


def _scores(task: Measured, condition: int, of: Measure) -> Float[np.ndarray, " question"]:
    right = task.exact(condition)
    if of == "value":
        return task.values(condition)[: task.done]
    return np.full(task.done, np.nan) if right is None else right[: task.done].astype(float)


def _said(task: Measured) -> tuple[Measure, str]:
    """What a claim rests on: right answers where there are any."""
    return ("value", UNITS[task.metric]) if task.metric == "tokens" else (
        "exact", "share of right answers"
    )  # fmt: skip


def _spread(
    name: str, sets: Float[np.ndarray, "set question"], interval: tuple[float, float] | None
) -> dict[str, float]:
    """A mean with an interval, or with the range that holds 90 % of the sets."""
    means = sets.mean(1)
    low, high = np.quantile(means, [0.05, 0.95]) if interval is None else interval
    return {name: float(means.mean()), f"{name}.low": float(low), f"{name}.high": float(high)}


def _number(row: Any, name: str, sign: str = "") -> str:
    low, high = row[f"{name}.low"], row[f"{name}.high"]
    span = "" if np.isnan(low) else f" [{low:{sign}.2f}, {high:{sign}.2f}]"
    return f"{row[name]:{sign}.2f}{span}"
