"""What results look like in a notebook: no script, every style inline, an own light background."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from headscope.evals.evaluation import Evaluation
from headscope.evals.validation import Validation
from headscope.explanation import Explanation
from headscope.headmap import HeadMap
from headscope.viz import causal_tables as tables
from headscope.viz import evaluation_tables
from headscope.viz.causal import DOSES, claims, heading, several, spared_note, title
from headscope.viz.causal_charts import charts, evals_chart
from headscope.viz.dose_chart import dose_chart
from headscope.viz.head_map import Drawing, affordable
from headscope.viz.markup import Markup, el, join
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LEVELS, LINE, MUTED, SURFACE
from headscope.viz.view import View, words

_SHOWN = 4

# Notebooks colour tables, rows and cells by their own theme, so each has to say its colours.
_COLOURS = f"background:{SURFACE['light']};color:{INK['light']}"
_BOX = f"{_COLOURS};padding:12px 14px;border-radius:8px;max-width:1040px;font:13px/1.45 {FONT}"
_TABLE = f"{_COLOURS};border-collapse:collapse;margin:8px 0 0;font:12.5px/1.5 {FONT}"
_CELL = (
    f"{_COLOURS};border:0;border-top:1px solid {LINE['light']};padding:3px 16px 3px 0;"
    "text-align:left;white-space:nowrap;font-variant-numeric:tabular-nums"
)
_HEADER = f"{_CELL};border-top:0;color:{MUTED['light']};font-weight:400"


def head_map_repr(head_map: HeadMap) -> str:
    """The head map, and the best heads of every role."""
    view = View.of(head_map)
    drawing = Drawing(view, head_map.info.model.name, tooltips=affordable(head_map))
    rows = [
        (_mark(view, role), words(str(rule)), _best(view, role))
        for role, rule in view.rules.items()
    ]
    table = _table(("role", "rule", f"first {_SHOWN} of its heads, with their scores"), rows)
    return el("div", drawing.svg(), table if rows else "", style=_BOX)


def explanation_repr(found: Explanation) -> str:
    """The evidence about one head, rule by rule, and its other scores."""
    held = ", ".join(map(words, found.roles)) or "no role"
    evidence = [
        (
            words(row["role"]),
            words(row["rule"]),
            row["kind"],
            _measured(words(row["score"]), row),
            f"{row['rank']} of {found.heads}",
            "yes" if row["passes"] else "no",
            "" if isnan(row["confidence"]) else f"{row['confidence']:.3f}",
            row["source"],
        )
        for row in found.table.to_dict("records")
    ]
    names = ("role", "rule", "kind", "score", "rank", "passes", "resamples that pass", "source")
    others = [
        (_measured(words(row["score"]), row), f"{row['rank']} of {found.heads}")
        for row in found.others().to_dict("records")
    ]
    title = f"{found.name} of {found.model}, KV head {found.kv_head}: {held}"
    return el(
        "div",
        el("div", title, style="font-weight:600"),
        _scrolled(names, evidence) if evidence else "",
        _table(("other score", "rank"), others) if others else "",
        style=_BOX,
    )


def validation_repr(validation: Validation) -> str:
    """The claims, and what they rest on: charts and tables of all evals, then of each by itself."""
    parts = [_line(title(validation), "font-weight:600")]
    parts += [_line(claim, "margin:4px 0;max-width:900px") for claim in claims(validation)]
    if several(validation):
        parts += [_beside(evals_chart(validation)), _note(spared_note(validation))]
        parts.append(_scrolled(*tables.specificity(validation)))
    for task, measured in enumerate(validation.tasks):
        if not measured.done:
            continue
        parts += [_line(heading(validation, task), "font-weight:600;margin-top:16px")]
        parts.append(_beside(*charts(validation, task)))
        said = (tables.gated(validation, task), tables.p_note(validation, task))
        parts += [_note(each) for each in said if each]
        parts.append(_scrolled(*tables.conditions(validation, task)))
        dose = dose_chart(validation, task)
        if dose:
            parts += [_line(dose, "margin-top:8px"), _note(DOSES)]
            parts.append(_scrolled(*tables.doses(validation, task)))
    return el("div", *parts, style=_BOX)


def evaluation_repr(evaluation: Evaluation) -> str:
    """All questions of each eval, then by length where there are several, then the claims."""
    parts = [_line(f"Evals of {evaluation.model}", "font-weight:600")]
    parts += [
        _line(said, "margin:4px 0;max-width:900px") for said in evaluation_tables.said(evaluation)
    ]
    for header, rows in evaluation_tables.results(evaluation):
        parts.append(_scrolled(header, rows))
    return el("div", *parts, style=_BOX)


def _line(said: str, style: str) -> Markup:
    return el("div", said, style=style)


def _note(said: str) -> Markup:
    return _line(said, f"color:{MUTED['light']};font-size:12px;max-width:900px")


def _beside(*charts: Markup) -> Markup:
    sized = (el("div", chart, style="flex:1 1 340px;max-width:520px") for chart in charts)
    return el("div", *sized, style="display:flex;flex-wrap:wrap;gap:8px 24px;margin-top:8px")


def _scrolled(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    return el("div", _table(names, rows), style="overflow-x:auto")


def _mark(view: View, role: str) -> Markup:
    style, full = view.styles[role], len(LEVELS) - 1
    look = (
        f"display:inline-block;width:17px;border-radius:3px;background:{style.fill(full)};"
        f"color:{style.text(full)};text-align:center;font-weight:600;margin-right:6px"
    )
    return join(el("span", style.letter, style=look), words(role))


def _measured(name: str, row: Mapping[str, Any]) -> str:
    return f"{name} {row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _best(view: View, role: str) -> str:
    score = view.rules[role].score
    best = [cell for cell in view.leading(role) if role in cell.roles][:_SHOWN]
    return ", ".join(f"{cell.name} {cell.scores[score][0]:.2f}" for cell in best) or "none"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    return el(
        "table",
        el("thead", el("tr", *(el("th", name, style=_HEADER) for name in names), style=_COLOURS)),
        el(
            "tbody",
            *(
                el("tr", *(el("td", cell, style=_CELL) for cell in row), style=_COLOURS)
                for row in rows
            ),
        ),
        style=_TABLE,
    )
