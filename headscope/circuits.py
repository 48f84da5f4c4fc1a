"""Heads that the circuits of two tasks have in common, beside what chance would give."""

from dataclasses import dataclass
from math import comb, nan
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from headscope.agreement import shared_ways
from headscope.circuit_heads import Circuit
from headscope.errors import HeadscopeError
from headscope.evals.statistics import Interval
from headscope.heads import Head, label
from headscope.patch_map import PatchMap

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.viz.chart import Chart

_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Overlap:
    """Two circuits of one model; `a` and `b` list the same heads in the same order.

    Attributes:
        model: its name.
        direction: of patching; "" where it is not known.
    """

    model: str
    direction: str
    a: Circuit
    b: Circuit

    @property
    def shared(self) -> tuple[Head, ...]:
        """The heads in both circuits."""
        return tuple(sorted(set(self.a.found) & set(self.b.found)))

    def jaccard(self) -> float:
        """Heads in both, of those in either; NaN of two empty circuits."""
        either = set(self.a.found) | set(self.b.found)
        return len(self.shared) / len(either) if either else nan

    def share(self) -> float:
        """Heads in both, of those in the smaller circuit; NaN where it is empty."""
        least = min(len(self.a.found), len(self.b.found))
        return len(self.shared) / least if least else nan

    def interval(self) -> Interval:
        """95 % percentile interval of the Jaccard index, over pairs drawn anew for each task.

        The circuits of a resample are as large as those found, so that it says how sure their
        membership is. Resamples rank heads with more noise than the pairs themselves do, which
        lowers their overlap: the one found may lie at the upper end. NaN where one is empty.
        """
        if not (self.a.found and self.b.found):
            return nan, nan
        rng = np.random.default_rng(self.a.seed)
        a, b = self.a.resampled(rng), self.b.resampled(rng)
        low, high = np.quantile((a & b).sum(1) / (a | b).sum(1), [0.025, 0.975])
        return float(low), float(high)

    def chance(self, by_layer: bool = True) -> Float[np.ndarray, " shared"]:
        """How likely 0, 1, 2, ... shared heads are, were one circuit's heads drawn at random.

        Args:
            by_layer: as many of each layer as the circuit has. Circuits crowd into some layers, and
                share heads for that alone. The shared heads of a layer are hypergeometric, and
                their sum over layers is what all permutations within layers give, exactly.
        """
        layers = np.array([layer for layer, _ in self.a.heads])
        groups = [layers == layer for layer in np.unique(layers)] if by_layer else [layers >= 0]
        sums = np.ones(1)
        for at in groups:
            a, b = int(self.a.members[at].sum()), int(self.b.members[at].sum())
            n = int(at.sum())
            odds = [ways / comb(n, b) for ways in shared_ways(a, b, n)]
            sums = np.convolve(sums, odds)
        return sums

    def expected(self, by_layer: bool = True) -> float:
        """Shared heads by chance; see `chance`."""
        odds = self.chance(by_layer)
        return float(odds @ np.arange(len(odds)))

    def p(self, by_layer: bool = True) -> float:
        """How likely chance shares at least as many heads, one-sided; see `chance`."""
        return min(1.0, float(self.chance(by_layer)[len(self.shared) :].sum()))

    def table(self) -> pd.DataFrame:
        """One row a head, that which matters most to both first.

        Columns: name, layer, head, both (the smaller of its effects), effect_a, effect_b, q_a, q_b,
        in_a, in_b.
        """
        a, b = self.a.effects.mean(0), self.b.effects.mean(0)
        table = pd.DataFrame(
            {
                "name": [label(head) for head in self.a.heads],
                "layer": [layer for layer, _ in self.a.heads],
                "head": [head for _, head in self.a.heads],
                "both": np.minimum(a, b), "effect_a": a, "effect_b": b,
                "q_a": self.a.q, "q_b": self.b.q,
                "in_a": self.a.members, "in_b": self.b.members,
            }
        )  # fmt: skip
        return table.sort_values(
            ["both", "layer", "head"], ascending=[False, True, True], ignore_index=True
        )

    def claims(self) -> list[str]:
        """What can be said, one sentence each, with its numbers."""
        a, b = self.a, self.b
        total, first, second = len(a.heads), len(a.found), len(b.found)
        how = "are in the circuit" if a.top is None else f"are the top {a.top}"
        by = f" by {self.direction}" if self.direction else ""
        said = [
            f"Of {total} heads of {self.model} patched alone{by}, {first} {how} of {a.task} "
            f"({len(a.effects)} pairs) and {second} of {b.task} ({len(b.effects)} pairs)."
        ]
        if not (first and second):
            empty = a.task if not first else b.task
            return [*said, f"No head is sure for {empty}, so that no overlap can be measured."]
        low, high = self.interval()
        names = ", ".join(map(label, self.shared[:10])) + (", …" if len(self.shared) > 10 else "")
        said.append(
            f"{len(self.shared)} heads are in both{': ' + names if names else ''} (Jaccard "
            f"{self.jaccard():.2f} [{low:.2f}, {high:.2f}], {self.share():.0%} of the smaller)."
        )
        sure = "more than" if self.p() <= _LEVEL else "no more than"
        said.append(
            f"That is {sure} chance allows within layers ({self.expected():.1f} expected, p = "
            f"{self.p():.2g}); whatever the layers, {self.expected(False):.1f} are expected (p = "
            f"{self.p(False):.2g})."
        )
        return said

    def chart(self) -> "Chart":
        """What every head does to both tasks.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import overlap

        return overlap(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import overlap_repr

        return overlap_repr(self)


def overlap(
    a: PatchMap, b: PatchMap, *, top: int | None = None, level: float = 0.05, seed: int = 0
) -> Overlap:
    """What the circuits of two patching maps have in common.

    Args:
        a, b: maps of one model, of the same heads and by the same direction, on different pairs:
            two tasks, or two sets of pairs of one, which says how much overlap there can be.
        top: so many heads with the largest effect are a circuit; those of `level` if left out.
        level: rate of false discoveries.
        seed: of sign flips and of resamples.

    Raises:
        HeadscopeError: the maps do not fit each other, a model does not tell clean from corrupt, or
            there are too few pairs.

    Source: after Merullo, Eickhoff & Pavlick 2023, arXiv 2310.08744, who report that the circuits
    of IOI and of colored objects in GPT-2 medium, found by path patching, share about 78 % of their
    heads. Tests, intervals and chance are headscope's own.
    """
    checks = {
        "of different models": a.fingerprint == b.fingerprint,
        "of different heads": set(a.heads) == set(b.heads),
        "patched in different directions": a.direction == b.direction,
        "measured on the same pairs": not set(a.digests) & set(b.digests),
    }
    wrong = next((what for what, fine in checks.items() if not fine), None)
    if wrong is not None:
        raise HeadscopeError(
            f"These two maps are {wrong}, so that their overlap says nothing; patch the same heads "
            "of one model in one direction, on pairs of two tasks."
        )
    for each in (a, b):
        each.check_scale()
    at = [b.heads.index(head) for head in a.heads]
    heads = tuple(a.heads)
    return Overlap(
        a.model,
        a.direction,
        Circuit(a.task, heads, a.effects(), a.changes(), top, level, seed),
        Circuit(b.task, heads, b.effects()[:, at], b.changes()[:, at], top, level, seed),
    )


def overlap_of(
    head_map: "HeadMap", *, top: int | None = None, level: float = 0.05, seed: int = 0
) -> Overlap:
    """The same of a scan with the probe `circuit_overlap`.

    Raises:
        HeadscopeError: the map was not measured by it, or as `overlap`.
    """
    fields = head_map.info.probes.get("circuit_overlap")
    if fields is None:
        raise HeadscopeError(
            "This head map holds no circuits; scan with the probe 'circuit_overlap'."
        )
    heads = tuple(head_map.heads())

    def side(task: str, name: str) -> Circuit:
        effects, changes = _flat(head_map, name), _flat(head_map, f"{name}_change")
        return Circuit(task, heads, effects, changes, top, level, seed)

    first, second = fields["prompts"]["tasks"]
    a, b = side(first, "circuit_a"), side(second, "circuit_b")
    return Overlap(head_map.info.model.name, fields["direction"], a, b)


def _flat(head_map: "HeadMap", name: str) -> Float[np.ndarray, "pair head"]:
    values = head_map[name].values.astype(np.float64)
    return values.reshape(len(values), -1)
