"""What results of patching, pruning, planning and benches look like in a notebook."""

from collections.abc import Sequence

import pandas as pd

from headscope.agreement import Agreement
from headscope.bench.result import Bench
from headscope.bench.tables import sentences
from headscope.circuits import Overlap
from headscope.clusters import Clusters
from headscope.compare import Comparison
from headscope.errors import HeadscopeError
from headscope.evals.effects import Effects
from headscope.evals.pruned import Pruning
from headscope.joint import JointEffect
from headscope.patch_map import PatchMap
from headscope.signals import Signals
from headscope.sparsity.frontier import Pareto
from headscope.sparsity.planned import Plan
from headscope.sparsity.profile import SparseProfile
from headscope.sparsity.recalls import Recalls
from headscope.viz.box import Table, shown
from headscope.viz.view import words

_ROWS = 12
_SURE = 3  # decimals


def effects_repr(found: Effects) -> str:
    """The claim, the map of all heads, and those whose ablation harms most."""
    if not found.measured.done:
        return shown(found.chart)
    return shown(found.chart, [found.claim()], frame(found.table()))


def patch_map_repr(found: PatchMap) -> str:
    """The claim, the map, and the heads with the largest effect."""
    return _claimed(found) if found.done else shown(found.chart)


def joint_repr(found: JointEffect) -> str:
    """The claim, and the tested set beside its controls."""
    return _claimed(found) if found.done else shown(found.chart)


def overlap_repr(found: Overlap) -> str:
    """What the circuits share, and the heads that matter most to both."""
    return shown(found.chart, found.claims(), frame(found.table()))


def signals_repr(found: Signals) -> str:
    """Who reads what earlier heads wrote, and the strongest edges."""
    return shown(found.chart, [], frame(found.to_pandas()))


def clusters_repr(found: Clusters) -> str:
    """The plane of the main components, and what sets every cluster apart."""
    return shown(found.chart, [], frame(found.described))


def agreement_repr(found: Agreement) -> str:
    """The matrix of rank correlations, and the pairs that agree most."""
    best = found.pairs.sort_values("spearman", ascending=False, key=abs, kind="stable")
    return shown(found.chart, [], frame(best))


def comparison_repr(found: Comparison) -> str:
    """Rank correlation and shared heads, score by score."""
    noted = found.table.loc[found.table["note"] != ""]
    return shown(found.chart, [], *([frame(noted)] if len(noted) else []))


def pruning_repr(found: Pruning) -> str:
    """The claims, the curves, and the areas under them."""
    if not found.done:
        return shown(found.chart)
    areas = [frame(found.areas(i)) for i, task in enumerate(found.tasks) if task.done]
    return shown(found.chart, found.claims(), *areas)


def profile_repr(found: SparseProfile) -> str:
    """Which rule each head has."""
    return shown(found.chart)


def plan_repr(found: Plan) -> str:
    """The rules of all heads, how many have each, and what they take."""
    return shown(found.chart, [], frame(found.table()), frame(found.costs()))


def recalls_repr(found: Recalls) -> str:
    """What rules would lose, layer by layer."""
    return shown(found.chart)


def pareto_repr(found: Pareto) -> str:
    """The claims, quality against cost, and every eval's numbers."""
    tables = [frame(found.table(i)) for i in range(len(found.evaluation.tasks))]
    return shown(found.chart, found.claims(), *tables)


def bench_repr(found: Bench) -> str:
    """Speed against length, what was left out, and what is known of quality."""
    return shown(found.chart, sentences(found))


def frame(table: pd.DataFrame, most: int = _ROWS) -> Table:
    """The first rows of a table; numbers as short as they can be told apart."""
    rows = [[_written(value) for value in row] for row in table.head(most).itertuples(index=False)]
    if len(table) > most:
        rows.append([f"and {len(table) - most:,} more", *[""] * (table.shape[1] - 1)])
    return [words(str(name)) for name in table.columns], rows


def _written(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.{_SURE}g}".replace("-", "−")
    return str(value)


def _claimed(found: PatchMap | JointEffect) -> str:
    try:
        said: Sequence[str] = [found.claim()]
    except HeadscopeError:  # which the picture says too
        said = []
    tables = [frame(found.top())] if isinstance(found, PatchMap) and said else []
    return shown(found.chart, said, *tables)
