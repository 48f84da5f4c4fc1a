"""Heads patched together, beside random sets of as many heads on the same pairs."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from headscope.evals.statistics import Interval, empirical_p, two_way_bootstrap
from headscope.heads import Head, label
from headscope.patched import Patched, interval

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

_LEVEL = 0.05


class JointEffect(Patched):
    """The effect of a set of heads patched together; see `Patched` for what an effect is.

    Attributes:
        controls: what the other sets are, e.g. "layer-matched". The first set is the tested one.
    """

    kind: Literal["joint_effect"] = "joint_effect"
    controls: str

    @property
    def tested(self) -> list[Head]:
        return list(self.sets[0])

    def effect(self) -> tuple[float, Interval]:
        """Of the tested set, with its 95 % bootstrap interval over pairs."""
        values = self.effects()[:, 0]
        return float(values.mean()), interval(values, self.seed)

    def control_effects(self) -> Float[np.ndarray, " set"]:
        """Of each control set."""
        return self.effects()[:, 1:].mean(0)

    def p(self) -> float:
        """How often a control set does at least as much; 1 / (1 + sets) at least."""
        return empirical_p(self.effect()[0], self.control_effects())

    def difference(self) -> tuple[float, Interval]:
        """Tested less mean control effect, with an interval over pairs and over sets.

        NaN without control sets.
        """
        values = self.effects()
        if len(self.sets) == 1:
            return np.nan, (np.nan, np.nan)
        mean = float(values[:, 0].mean() - values[:, 1:].mean())
        if not np.isfinite(interval(values[:, 0], self.seed)).all():
            return mean, (np.nan, np.nan)
        return mean, two_way_bootstrap(values[:, 0], values[:, 1:].T, self.seed)

    def table(self) -> pd.DataFrame:
        """Two rows: the tested set and the control sets.

        Columns: heads, sets, effect with its interval (low, high: over pairs for the tested set,
        the 5th and 95th percentile of the sets for controls), most (the largest of a set).
        """
        mean, (low, high) = self.effect()
        rows = [("tested", 1, mean, low, high, mean)]
        if len(self.sets) > 1:
            others = self.control_effects()
            edges = np.quantile(others, [0.05, 0.95])
            rows.append((self.controls, len(others), others.mean(), *edges, others.max()))
        return pd.DataFrame(rows, columns=["heads", "sets", "effect", "low", "high", "most"])

    def claim(self) -> str:
        """One sentence, with its numbers, that says no more than they do."""
        self.check_scale()
        does = "restores" if self.direction == "denoising" else "destroys"
        mean, (low, high) = self.effect()
        said = (
            f"{self.direction.capitalize()} {', '.join(map(label, self.tested))} together on "
            f"{self.done} pairs of {self.task} ({self.told_apart} told apart) {does} {mean:.2f} "
            f"of the gap [{low:.2f}, {high:.2f}]"
        )
        sets = len(self.sets) - 1
        if not sets:
            return f"{said}; there are no control sets to hold it against."
        others, p = self.control_effects(), self.p()
        more, (low, high) = self.difference()
        said += f", where {sets} {self.controls} sets give {others.mean():.2f} on average"
        if 1 / (1 + sets) > _LEVEL:
            return f"{said}: these are too few to say whether random heads would do the same."
        found = "more than" if p <= _LEVEL else "not significantly more than"
        return (
            f"{said} and {others.max():.2f} at most: {found} random heads (p = {p:.2g}, "
            f"difference {more:.2f} [{low:.2f}, {high:.2f}])."
        )

    def chart(self) -> "Chart":
        """The tested set beside its control sets.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: there are no effects to show; see `check_scale`.
        """
        from headscope.viz.figures import joint

        return joint(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import joint_repr

        return joint_repr(self)
