"""A head map by activation patching: what every head alone carries from one run to the other."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.evals.controls import HeadSet
from headscope.evals.statistics import benjamini_hochberg, sign_flip_p
from headscope.heads import Head, label
from headscope.patched import Patched, interval

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

_LEVEL = 0.05


class PatchMap(Patched):
    """The effect of each head patched alone; see `Patched` for what an effect is."""

    kind: Literal["patch_map"] = "patch_map"

    @property
    def heads(self) -> list[Head]:
        return [head for each in self.sets for head in each]

    def table(self) -> pd.DataFrame:
        """One row a head, in the order in which they were patched.

        Columns: name, layer, head, effect with its 95 % bootstrap interval over pairs (low, high;
        NaN of fewer than 6), change (mean, in nats), p of the change by sign flips, and q, the same
        with Benjamini-Hochberg over all heads of the map.
        """
        effects, changes = self.effects(), self.changes()
        bounds = [interval(values, self.seed) for values in effects.T]
        p = np.array([sign_flip_p(change, self.seed) for change in changes.T if self.done])
        nothing = np.full(len(self.heads), np.nan)
        return pd.DataFrame(
            {
                "name": [label(head) for head in self.heads],
                "layer": [layer for layer, _ in self.heads],
                "head": [head for _, head in self.heads],
                "effect": effects.mean(0) if self.done else nothing,
                "low": [low for low, _ in bounds],
                "high": [high for _, high in bounds],
                "change": changes.mean(0) if self.done else nothing,
                "p": p if self.done else nothing,
                "q": benjamini_hochberg(p) if self.done else nothing,
            }
        )

    def top(self, k: int = 10) -> pd.DataFrame:
        """The rows of the k heads with the largest effect, largest first.

        Raises:
            HeadscopeError: k is not positive, or the model does not tell clean from corrupt.
        """
        self.check_scale()
        if k < 1:
            raise HeadscopeError(f"Ask for at least one head, not {k}.")
        by = ["effect", "layer", "head"]
        table = self.table().sort_values(by, ascending=[False, True, True])
        return table.head(k).reset_index(drop=True)

    def leading(self, k: int) -> HeadSet:
        """The k heads with the largest effect.

        Raises:
            HeadscopeError: there are not so many, or the model does not tell clean from corrupt.
        """
        self.check_scale()
        if not 1 <= k <= len(self.heads):
            raise HeadscopeError(
                f"{len(self.heads)} heads were patched, so there is no top {k}; ask for 1 to "
                f"{len(self.heads)}."
            )
        effects = self.effects().mean(0)
        order = sorted(range(len(self.heads)), key=lambda i: (-effects[i], self.heads[i]))
        return tuple(self.heads[i] for i in order[:k])

    def claim(self) -> str:
        """One sentence, with its numbers, that says no more than they do."""
        self.check_scale()
        table = self.top(len(self.heads))
        best = table.to_dict("records")[0]
        sure = int((table["q"].to_numpy() <= _LEVEL).sum())
        does = "restores" if self.direction == "denoising" else "destroys"
        return (
            f"{self.direction.capitalize()} {len(table)} heads of {self.model} one at a time on "
            f"{self.done} pairs of {self.task} (margins {np.mean(self.clean):.2f} and "
            f"{np.mean(self.corrupt):.2f} nats, {self.told_apart} pairs told apart), "
            f"{best['name']} alone {does} {best['effect']:.2f} of the gap "
            f"[{best['low']:.2f}, {best['high']:.2f}], and {sure} heads change the margin "
            f"(q <= {_LEVEL:g})."
        )

    def _repr_html_(self) -> str:
        """The map as a picture, for notebooks."""
        from headscope.viz.notebook_results import patch_map_repr

        return patch_map_repr(self)

    def chart(self) -> "Chart":
        """Every head as a cell, and those with the largest effect.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: there are no effects to show; see `check_scale`.
        """
        from headscope.viz.figures import patch_map

        return patch_map(self)
