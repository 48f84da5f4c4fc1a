"""What results look like in a notebook: no script, every style inline, an own light background."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from headscope.evals.validation import Validation
from headscope.explanation import Explanation
from headscope.headmap import HeadMap
from headscope.viz.causal import change_chart, claim, conditions, exact_chart, title
from headscope.viz.head_map import Drawing
from headscope.viz.markup import Markup, el, join
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LEVELS, LINE, MUTED, SURFACE
from headscope.viz.view import View, words

_TOOLTIPS_UP_TO = 4_000  # scores of all heads; a notebook is saved with its outputs
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
    few = len(view.cells) * len(head_map.scores) <= _TOOLTIPS_UP_TO
    tooltips = "scores" if few else "role"
    drawing = Drawing(view, head_map.info.model.name, tooltips=tooltips)
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
        el("div", _table(names, evidence), style="overflow-x:auto") if evidence else "",
        _table(("other score", "rank"), others) if others else "",
        style=_BOX,
    )


def validation_repr(validation: Validation) -> str:
    """The claim, what it rests on as two charts, and the same as a table."""
    parts: list[Markup] = [
        el("div", title(validation), style="font-weight:600"),
        el("div", claim(validation), style="margin:4px 0 8px;max-width:900px"),
    ]
    if validation.done:
        charts = (exact_chart(validation), change_chart(validation))
        sized = (el("div", chart, style="flex:1 1 340px;max-width:480px") for chart in charts)
        parts += [
            el("div", *sized, style="display:flex;flex-wrap:wrap;gap:8px 24px"),
            _table(*conditions(validation)),
        ]
    return el("div", *parts, style=_BOX)


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
