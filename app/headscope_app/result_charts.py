"""Pictures of results, drawn where torch is."""

from collections.abc import Iterator
from typing import Any, Literal

from headscope.errors import HeadscopeError
from headscope.viz.chart import Chart
from headscope.viz.figures import ablation, dose, specificity


def charts(kind: str, found: Any, theme: Literal["light", "dark"]) -> list[dict[str, str]]:
    """What is drawn of a result: name, and SVG. Nothing where nothing was measured yet."""
    try:
        drawn = list(_of_validation(found)) if kind == "validation" else [found.chart()]
    except HeadscopeError:
        return []
    return [{"name": chart.name, "svg": chart.svg(theme)} for chart in drawn]


def _of_validation(found: Any) -> Iterator[Chart]:
    """What changes and what is spared; then each eval beside its controls, and by dose."""
    measured = [number for number, task in enumerate(found.tasks) if task.done]
    if len(measured) > 1:
        yield specificity(found)
    for number in measured:
        yield ablation(found, number)
        if found.doses(number)["k"].nunique() > 1:
            yield dose(found, number)
