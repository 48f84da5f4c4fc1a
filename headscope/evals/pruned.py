"""What pruning heads in several orders did to some evals: curves, areas and sentences."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator

from headscope.errors import HeadscopeError
from headscope.evals import pruning_tables
from headscope.evals.measured import Measured, Questioned
from headscope.heads import Head

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 1
Kind = Literal["gradient", "score", "random"]


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


class Pruning(Questioned):
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
        return pruning_tables.curves(self)

    def table(self, task: int = 0) -> pd.DataFrame:
        """One row for each order and step of one eval; random orders together.

        Columns: order, orders (how many), pruned, share; exact with its Wilson interval and value
        with a bootstrap interval over questions; exact.change and change, of exact and value from
        the whole model, paired, with theirs. Of random orders these are means, and the range that
        holds 90 % of them.
        """
        return pruning_tables.table(self, task)

    def areas(self, task: int = 0) -> pd.DataFrame:
        """One row for each order of one eval; random orders together.

        Columns, for exact and value: the area with its bootstrap interval over questions (of random
        orders the range that holds 90 %); .beyond, it less the mean area of random orders, with a
        two-way bootstrap interval over questions and orders; .p, how often a random order has at
        least its area, not corrected for the other orders. Where right answers of all questions
        agree, intervals are those of shares, which still have a width.
        """
        return pruning_tables.areas(self, task)

    def differences(self, task: int = 0) -> pd.DataFrame:
        """One row for each two orders of one eval that are not random: areas of the first less
        those of the second.

        Columns: first, second; exact and value with paired bootstrap intervals over questions, and
        .p by sign flips, two-sided, Holm over the rows.
        """
        return pruning_tables.differences(self, task)

    def claims(self) -> list[str]:
        """For each eval one sentence for each order, and one for each two of them."""
        return pruning_tables.claims(self)

    def chart(self) -> "Chart":
        """Curves of every order over the share of heads that are out.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: no question has been measured yet.
        """
        from headscope.viz.figures import pruning

        return pruning(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import pruning_repr

        return pruning_repr(self)
