"""The parts of a report that are charts: scores, agreement, curves, another run, other results."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from headscope.bench.result import Bench
from headscope.bench.tables import sentences
from headscope.errors import HeadscopeError
from headscope.evals.effects import Effects
from headscope.evals.evaluation import Evaluation
from headscope.evals.pruned import Pruning
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.joint import JointEffect
from headscope.patch_map import PatchMap
from headscope.sparsity.frontier import Pareto
from headscope.sparsity.planned import Plan
from headscope.sparsity.profile import SparseProfile
from headscope.sparsity.recalls import Recalls
from headscope.viz import evaluation_tables, figures
from headscope.viz.chart import Chart
from headscope.viz.markup import Markup, el
from headscope.viz.picture import picture
from headscope.viz.run_results import Result

Draw = Callable[[], Chart]

_EVALS = (Evaluation, Effects, Pruning)
_PATCHES = (PatchMap, JointEffect)
_PROFILES = (Pareto, Plan, SparseProfile, Recalls, Bench)


def scores_section(head_map: HeadMap) -> Markup:
    """How sure roles are, and how scores are spread over heads: folded, since the panel of the map
    shows the same smaller."""
    spread = picture(figures.score_distribution(head_map))
    folded = el("details", el("summary", "How many heads have which score"), spread)
    sure = [picture(figures.confidence(head_map))] if head_map.rules() else []
    return _shown("scores", "Scores and confidence", *sure, folded)


def agreement_section(head_map: HeadMap) -> Markup:
    """Which scores say the same, and heads that score alike."""
    return _section(
        "agreement",
        "Agreement and clusters",
        lambda: head_map.agreement().chart(),
        lambda: head_map.clusters().chart(),
    )


def curves_section(head_map: HeadMap) -> Markup:
    """Curves by slot, distance and layer, where the scan had their probes."""
    return _section(
        "curves",
        "Curves",
        lambda: figures.slot_curve(head_map),
        lambda: figures.waveform(head_map),
        lambda: figures.distances(head_map),
        lambda: figures.sink_profile(head_map),
    )


def comparison_section(head_map: HeadMap, other: HeadMap | None) -> Markup:
    """Beside another run: roles, and scores where the two have the same shape.

    Raises:
        HeadscopeError: the two share no role.
    """
    if other is None:
        return Markup("")
    charts = [figures.model_comparison(head_map, other)]
    with suppress(HeadscopeError):  # of another shape: heads have no counterparts
        charts.append(head_map.compare(other).chart())
    return _shown("comparison", "Beside another run", *map(picture, charts))


def evals_section(results: Sequence[Result]) -> Markup:
    """Evaluations, heads ablated one by one, pruning."""
    return _results("evals", "Evals and ablations", [r for r in results if isinstance(r, _EVALS)])


def patches_section(results: Sequence[Result]) -> Markup:
    """Maps by patching, and heads patched together."""
    chosen = [r for r in results if isinstance(r, _PATCHES)]
    return _results("patching", "Patching", chosen)


def profiles_section(results: Sequence[Result]) -> Markup:
    """Profiles, plans, what they lose, and how fast they are."""
    chosen = [r for r in results if isinstance(r, _PROFILES)]
    return _results("profiles", "Sparse profiles and speed", chosen)


def _results(name: str, title: str, results: Sequence[Result]) -> Markup:
    return _shown(name, title, *(_result(each) for each in results))


def _result(found: Result) -> Markup:
    said = [el("p", each, class_="claim") for each in claims_of(found)]
    try:
        drawn = picture(found.chart())
    except HeadscopeError as error:
        drawn = el("p", str(error), class_="note")
    return el("article", drawn, *said, class_="card")


def claims_of(found: Result) -> list[str]:
    """What a result says in sentences; none where nothing may be claimed."""
    try:
        if isinstance(found, Evaluation):
            return evaluation_tables.said(found)
        if isinstance(found, Pruning | Pareto | Validation):
            return found.claims()
        if isinstance(found, Effects | PatchMap | JointEffect):
            return [found.claim()]
    except HeadscopeError:
        return []
    return sentences(found) if isinstance(found, Bench) else []


def _section(name: str, title: str, *draws: Draw) -> Markup:
    """Those charts that these results allow; nothing where they allow none."""
    drawn = []
    for draw in draws:
        try:
            drawn.append(picture(draw()))
        except HeadscopeError:
            continue  # the scan had no such probe, or too few heads or scores
    return _shown(name, title, *drawn)


def _shown(name: str, title: str, *parts: Markup) -> Markup:
    if not parts:
        return Markup("")
    return el("section", el("h2", title), el("div", *parts, class_="pictures"), id=name)
