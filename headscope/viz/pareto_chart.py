"""Quality against cost: planned, by a score, uniform and random profiles beside the whole model."""

from math import isfinite
from typing import Any

from headscope.evals.measured import UNITS
from headscope.sparsity.frontier import Pareto
from headscope.viz.charts import Scale, horizontal, plain, signed, vertical, with_interval
from headscope.viz.dot_chart import span
from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LINE, MUTED, SURFACE

_LEFT, _RIGHT, _WIDTH, _HEIGHT, _PITCH = 62.0, 22.0, 460.0, 240.0, 15.0
_STEP = 9.0  # px between the marks of one budget, which would hide each other
_MADE = ("planner", "score", "uniform", "random")
_NAMES = {"planner": "planned", "uniform": "uniform window", "random": "random, same rules"}
_TAKEN = {"density": "share of causal pairs computed", "kv": "share of KV bytes held"}


def pareto_chart(found: Pareto, task: int = 0) -> Markup:
    """One mark for each budget and kind of profile, with its interval; of random ones their range.

    Kinds differ by their mark and not by colour. The height is the share of the whole model's right
    answers, or where an eval has none the change in nats.
    """
    rows = found.table(task).to_dict("records")
    measured = found.evaluation.tasks[task]
    column = "of_dense" if any(isfinite(row["of_dense"]) for row in rows) else "change"
    what = "right answers, as a share of the whole model's"
    if column == "change":
        what = f"change of the {UNITS[measured.metric]}, nats"
    ends = [row[f"{column}{end}"] for row in rows for end in ("", ".low", ".high")]
    low, high = span([*ends, 1.0] if column == "of_dense" else ends)
    made = [kind for kind in _MADE if any(found.of(b, kind) for b in found.budgets)]  # pyright: ignore
    top = 14 + _PITCH * len(made)
    across = Scale(0.0, 1.0, _LEFT, _WIDTH)
    up = Scale(low, high, top + _HEIGHT, -_HEIGHT)
    name = f"{found.evaluation.model}, {measured.task} ({measured.done} questions): {what}"
    dense = 1.0 if column == "of_dense" else 0.0
    kinds = {point.name: point.made for point in found.points}
    drawn = el(
        "svg",
        el("title", name),
        *(_entry(kind, _said(found, kind), 8 + _PITCH * i) for i, kind in enumerate(made)),
        el("g", *(_across(up(t), "gridline") for t in up.ticks()), stroke=LINE["light"]),
        el("g", _across(up(dense), "axis"), stroke=MUTED["light"], stroke_dasharray="2 2"),
        *(
            _mark(row, kinds[row["profile"]], column, across, up, made)
            for row in rows
            if isfinite(row[column])
        ),
        _labels(across, up, top + _HEIGHT, found.budget_kind),
        class_="dots",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_LEFT + _WIDTH + _RIGHT:g} {top + _HEIGHT + 40:g}",
        font_family=FONT,
        role="img",
        aria_label=name,
    )
    return el("figure", el("figcaption", name), drawn, style="margin:0")


def pareto_svg(found: Pareto, task: int = 0) -> str:
    """The chart as a file of its own, on white."""
    chart = pareto_chart(found, task)
    svg = chart[chart.index("<svg") : chart.index("</svg>") + len("</svg>")]
    ground = el("rect", x=0, y=0, width="100%", height="100%", fill=SURFACE["light"])
    start = svg.index("</title>") + len("</title>")
    return svg[:start] + ground + svg[start:]


def pareto_html(found: Pareto) -> str:
    """A page with the chart of each eval and what may be claimed."""
    charts = [pareto_chart(found, task) for task in range(len(found.evaluation.tasks))]
    title = f"{found.evaluation.model}: sparse profiles"
    body = el(
        "body",
        el("h1", title),
        *charts,
        el("ul", *(el("li", claim) for claim in found.claims())),
        style=f"font-family:{FONT};max-width:46rem;margin:2rem auto;color:{INK['light']}",
    )
    head = el("head", Markup('<meta charset="utf-8">'), el("title", title))
    return "<!doctype html>\n" + el("html", head, body, lang="en")


def _said(found: Pareto, kind: str) -> str:
    if kind == "score":
        return f"by {found.score}, one streaming rule"
    return _NAMES[kind]


def _mark(
    row: dict[str, Any], kind: str, column: str, across: Scale, up: Scale, made: list[str]
) -> Markup:
    shift = _STEP * (made.index(kind) - (len(made) - 1) / 2)
    x = across(row["share"]) + shift
    value = (row[column], row[f"{column}.low"], row[f"{column}.high"])
    told = f"{row['profile']} at {plain(row['share'], 3)}: {with_interval(value)}"
    whisker = ""
    if isfinite(value[1]):
        whisker = vertical(x, up(value[1]), up(value[2]), "whisker")
    return el("g", el("title", told), whisker, _shape(kind, x, up(value[0])), stroke=INK["light"])


def _shape(kind: str, x: float, y: float) -> Markup:
    ink, white, muted = INK["light"], SURFACE["light"], MUTED["light"]
    if kind == "planner":
        return el("circle", cx=x, cy=y, r=4.5, fill=ink)
    if kind == "score":
        return el("rect", x=x - 4, y=y - 4, width=8, height=8, fill=white)
    if kind == "uniform":
        return el("path", d=f"M{x:.1f} {y - 5:.1f}l5 9h-10z", fill=white)
    return el("circle", cx=x, cy=y, r=3.5, fill=muted, stroke=muted)


def _entry(kind: str, name: str, y: float) -> Markup:
    label = el("text", name, x=20, y=y + 4, font_size=11, fill=INK["light"])
    return el("g", el("g", _shape(kind, 10.0, y), stroke=INK["light"]), label)


def _labels(across: Scale, up: Scale, bottom: float, kind: str) -> Markup:
    n, m = up.digits(), across.digits()
    heights = [
        el("text", signed(t, n), x=_LEFT - 7, y=up(t) + 4, text_anchor="end") for t in up.ticks()
    ]
    shares = [
        el("text", plain(t, m), x=across(t), y=bottom + 15, text_anchor="middle")
        for t in across.ticks()
    ]
    axis = el("text", _TAKEN[kind], x=_LEFT + _WIDTH / 2, y=bottom + 32, text_anchor="middle")
    return el("g", *heights, *shares, axis, class_="tick", font_size=10.5, fill=MUTED["light"])


def _across(y: float, look: str) -> Markup:
    return horizontal(_LEFT, _LEFT + _WIDTH, y, look)
