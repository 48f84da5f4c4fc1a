"""What was measured of one head, and why it has its roles, as tables."""

from math import isnan
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from headscope.explanation import Explanation
from headscope.roles import SURE
from headscope.scores import Scores
from headscope.viz.view import View, words
from headscope_app.elements import attributes, letter, scrolled_table, shown

_BINS = 28


def evidence_table(found: Explanation) -> Component:
    """Every rule that could be applied, those that the head passes first."""
    rows = sorted(found.table.to_dict("records"), key=lambda row: not row["passes"])
    names = ("role", "rule", "score", "mean [95 %]", "rank", "in resamples", "source of the rule")
    body = []
    for row in rows:
        body.append(
            html.Tr(
                [
                    html.Th([letter(row["role"]), words(row["role"])], scope="row"),
                    html.Td([html.B("passes") if row["passes"] else "fails", f": {row['rule']}"]),
                    html.Td(words(row["score"])),
                    html.Td(_interval(row), className="number"),
                    html.Td(f"{row['rank']} of {found.heads}", className="number"),
                    html.Td(_confidence(row["confidence"]), className="number"),
                    html.Td(row["source"], className="few source"),
                ],
                className="now" if row["passes"] else "dim",
            )
        )
    return _table(names, body, f"Why {found.name} has its roles")


def score_table(view: View, found: Explanation) -> Component:
    """Every score, where it lies among those of all heads, and its rank."""
    names = ("score", "mean [95 %]", "among all heads", "rank")
    body = []
    for row in sorted(found.scores.to_dict("records"), key=lambda row: row["rank"]):
        body.append(
            html.Tr(
                [
                    html.Th(words(row["score"]), scope="row"),
                    html.Td(_interval(row), className="number"),
                    html.Td(_strip(view.head_map[row["score"]], row)),
                    html.Td(f"{row['rank']}.", className="number"),
                ]
            )
        )
    return _table(names, body, f"All scores of {found.name}, among {found.heads} heads")


def _table(names: tuple[str, ...], body: list[Component], label: str) -> Component:
    head = html.Tr([html.Th(name, scope="col") for name in names])
    return scrolled_table(head, body, label, tall=True)


def _strip(score: Scores, row: dict[str, Any]) -> Component:
    """How many heads have which score, as shades, and where this one stands."""
    means = score.mean().ravel()
    low, high = float(means.min()), float(means.max())
    if low == high:
        return html.Span("the same for all heads", className="few")
    counts, _ = np.histogram(means, _BINS, (low, high))
    shades = np.sqrt(counts / counts.max())
    stops = ",".join(
        f"rgb(var(--density)/{shade:.2f}) {100 * i / _BINS:.1f}% {100 * (i + 1) / _BINS:.1f}%"
        for i, shade in enumerate(shades)
    )
    place, first, last = (
        100 * min(max((row[name] - low) / (high - low), 0), 1) for name in ("mean", "low", "high")
    )
    told = f"{low:.3g} to {high:.3g} over all heads; this one {row['mean']:.3g}"
    return html.Span(
        [
            html.I(style={"left": f"{first:.1f}%", "width": f"{last - first:.1f}%"}),
            html.B(style={"left": f"{place:.1f}%"}),
        ],
        className="strip",
        style={"background": f"linear-gradient(90deg,{stops})"},
        title=told,
        role="img",
        **attributes(aria_label=told),
    )


def _interval(row: dict[str, Any]) -> list[Any]:
    return [
        html.B(shown(row["mean"])),
        html.Span(f" [{shown(row['low'])}, {shown(row['high'])}]", className="few"),
    ]


def _confidence(value: float) -> str:
    if isnan(value):
        return "one prompt"
    return f"{value:.0%}" + ("" if value >= SURE or value <= 1 - SURE else ", unsure")
