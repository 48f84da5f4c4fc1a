"""How a change grows with the number of heads, beside what as many random heads do."""

from collections.abc import Sequence
from math import isnan
from typing import Any

from headscope.evals.conditions import CONTROLS
from headscope.evals.validation import Validation
from headscope.viz.causal_charts import change_of
from headscope.viz.causal_tables import CONDITIONS, digits
from headscope.viz.charts import Scale, horizontal, signed, vertical, with_interval
from headscope.viz.dot_chart import span
from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import EMPTY, INK, LINE, MUTED

_LEFT, _RIGHT, _HEIGHT, _PITCH = 58.0, 22.0, 190.0, 15.0
_STEP = 14.0  # px from mark to mark within a dose
_LETTER = 6.5  # px, at most
_LIGHT = {"rest": "#b9c1c9", "track": EMPTY["light"]}  # where there is no style sheet

Doses = Sequence[dict[str, Any]]


def dose_chart(found: Validation, task: int) -> Markup:
    """Doses side by side at equal steps, whatever their numbers; "" if there is only one.

    The line and its dots are the tested heads, boxes hold 90 % of the random sets of a kind. Kinds
    differ by what fills their box, not by colour.
    """
    rows = found.doses(task).to_dict("records")
    if len(rows) < 2:
        return Markup("")
    kinds = [kind for kind in CONTROLS if any(row[f"{kind}.sets"] for row in rows)]
    slot = max(450.0 / len(rows), _STEP * (len(kinds) + 2))
    width = _LEFT + slot * len(rows) + _RIGHT
    legend, top = _legend(kinds, width)
    ends = [row[f"{kind}.{end}"] for row in rows for kind in kinds for end in ("5%", "95%")]
    changes = [row[name] for row in rows for name in ("change", "change.low", "change.high")]
    low, high = span([*ends, *changes])
    scale = Scale(low, high, top + _HEIGHT, -_HEIGHT)
    middles = [_LEFT + slot * (i + 0.5) for i in range(len(rows))]
    n, bottom = digits(found, task), top + _HEIGHT
    name = f"{change_of(found.tasks[task])}, by the number of heads ablated"
    drawn = el(
        "svg",
        el("title", name),
        legend,
        _named(rows, middles, slot, top),
        el(
            "g",
            *(_across(scale(t), width, "gridline") for t in scale.ticks()),
            stroke=LINE["light"],
        ),
        el("g", _across(scale(0.0), width, "axis"), stroke=MUTED["light"]),
        _path(rows, [x - _STEP / 2 * len(kinds) for x in middles], scale),
        *(
            _dose(row, kinds, x - _STEP / 2 * len(kinds), scale, n)
            for row, x in zip(rows, middles, strict=True)
        ),
        _labels(rows, middles, scale, bottom),
        class_="dots",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {bottom + 52:g}",
        font_family=FONT,
        role="img",
        aria_label=name,
        # Many doses would shrink to unreadable letters: scrolled to instead.
        style=f"min-width:{0.8 * width:.0f}px;max-width:{1.15 * width:.0f}px",
    )
    return el("figure", el("figcaption", name), drawn, style="margin:0;overflow-x:auto")


def _dose(row: dict[str, Any], kinds: Sequence[str], x: float, scale: Scale, n: int) -> Markup:
    """The tested heads of one dose, and the boxes to the right of them."""
    value = (row["change"], row["change.low"], row["change.high"])
    boxes = []
    for i, kind in enumerate(kinds):
        if row[f"{kind}.sets"]:
            mean, low, high = (row[f"{kind}.{name}"] for name in ("change", "5%", "95%"))
            told = f"{row['k']}, {CONDITIONS[kind]}: {with_interval((mean, low, high), n)}"
            drawn = _box(kind, x + _STEP * (i + 1), scale(low), scale(high), scale(mean))
            boxes.append(el("g", el("title", told), *drawn))
    ink = INK["light"]
    return el(
        "g",
        *boxes,
        el(
            "g",
            el("title", f"{row['k']}, {CONDITIONS['tested']}: {with_interval(value, n)}"),
            "" if isnan(value[1]) else vertical(x, scale(value[1]), scale(value[2]), "whisker"),
            el("circle", cx=x, cy=scale(value[0]), r=4.5, fill=ink),
            class_="tested",
            stroke=ink,
        ),
    )


def _box(kind: str, x: float, low: float, high: float, mean: float) -> list[Markup]:
    """A range as a box: filled, hollow or striped by its kind; its mean as a line through it."""
    half, thick = 4.5, max(low - high, 2.0)
    start = min((low + high) / 2 - thick / 2, high)
    shape = {"x": x - half, "y": start, "width": 2 * half, "height": thick}
    filled = kind == "uniform"
    fill = {"class_": "rest", "fill": _LIGHT["rest"]} if filled else {"fill": "none"}
    outline = {} if filled else {"class_": "single", "stroke": MUTED["light"]}
    stripes = [
        horizontal(x - half, x + half, start + 3.0 * (i + 1), "single")
        for i in range(int((thick - 1) / 3.0) if kind == "norm_matched" else 0)
    ]
    return [
        el("rect", **fill, **outline, **shape),
        el("g", *stripes, stroke=MUTED["light"]),
        el(
            "g",
            horizontal(x - half - 1.5, x + half + 1.5, mean, "whisker"),
            stroke=INK["light"],
            stroke_width=1.5,
        ),
    ]


def _named(rows: Doses, middles: Sequence[float], slot: float, top: float) -> Markup:
    """The dose named beforehand, on a ground of its own."""
    at = next(x for row, x in zip(rows, middles, strict=True) if row["confirmatory"])
    place = {"x": at - slot / 2 + 2, "y": top, "width": slot - 4, "height": _HEIGHT}
    return el("rect", class_="track", fill=_LIGHT["track"], **place)


def _path(rows: Doses, x: Sequence[float], scale: Scale) -> Markup:
    points = " ".join(
        f"{at:.1f},{scale(row['change']):.1f}" for row, at in zip(rows, x, strict=True)
    )
    line = el("polyline", points=points, class_="whisker", fill="none")
    return el("g", line, stroke=INK["light"], stroke_width=1.2)


def _labels(rows: Doses, middles: Sequence[float], scale: Scale, bottom: float) -> Markup:
    n = scale.digits()
    heights = [
        el("text", signed(t, n), x=_LEFT - 7, y=scale(t) + 4, text_anchor="end")
        for t in scale.ticks()
    ]
    numbers = []
    for row, x in zip(rows, middles, strict=True):
        named = row["confirmatory"]
        weight = 700 if named else None
        place = {"x": x, "text_anchor": "middle"}
        numbers.append(el("text", str(row["k"]), y=bottom + 15, font_weight=weight, **place))
        if named:
            numbers.append(el("text", "named beforehand", y=bottom + 29, **place))
    middle = (middles[0] + middles[-1]) / 2
    axis = el("text", "heads ablated", x=middle, y=bottom + 46, text_anchor="middle")
    return el("g", *heights, *numbers, axis, class_="tick", font_size=10.5, fill=MUTED["light"])


def _legend(kinds: Sequence[str], width: float) -> tuple[Markup, float]:
    """Every mark with its name, in as many lines as they need; and where the chart may begin."""
    start = 6.0
    x, y, entries = start, 8.0, list[Markup]()
    for kind in ("tested", *kinds):
        room = 25 + _LETTER * len(CONDITIONS[kind])
        if x > start and x + room > width:
            x, y = start, y + _PITCH
        if kind == "tested":
            dot = el("circle", cx=x + 4.5, cy=y, r=4.5, fill=INK["light"])
            mark = el("g", dot, class_="tested")
        else:
            mark = el("g", *_box(kind, x + 4.5, y + 5, y - 5, y))
        name = el("text", CONDITIONS[kind], x=x + 15, y=y + 4)
        entries.append(el("g", mark, el("g", name, font_size=11, fill=INK["light"])))
        x += room
    return el("g", *entries), y + _PITCH


def _across(y: float, width: float, look: str) -> Markup:
    return horizontal(_LEFT, width - _RIGHT, y, look)
