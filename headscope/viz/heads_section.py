"""The parts of a report that show heads: the map with its side panel, and the best of each role."""

from collections.abc import Collection
from math import isfinite

from headscope.heads import Head
from headscope.viz.charts import bar, histogram, score_scale
from headscope.viz.head_map import Drawing
from headscope.viz.markup import Markup, el
from headscope.viz.palette import LEVELS
from headscope.viz.view import Cell, View, words

_SHOWN = 10
_PANEL_BESIDE_FROM = 400  # px of a map's height; beside a lower one it would leave a gap
_TOOLTIPS_UP_TO = 12_000  # scores of all heads; beyond that the page would grow past 3 MB


def map_section(view: View, tested: Collection[Head]) -> Markup:
    """The head map, a legend that filters, and a panel for the selected head."""
    few = len(view.cells) * len(view.head_map.scores) <= _TOOLTIPS_UP_TO
    drawing = Drawing(
        view,
        theme="auto",
        tooltips="scores" if few else "name",  # the panel beside it says the rest
        ringed=tested,
        anchors=True,
        key=False,
    )
    grid = el(
        "div",
        drawing.svg(),
        class_="map",
        tabindex=0,
        role="group",
        aria_label="Head map. Arrow keys move the selected head.",
    )
    low = drawing.grid.height < _PANEL_BESIDE_FROM
    return el(
        "section",
        el("h2", "Head map"),
        el(
            "div",
            el("div", _legend(view, bool(tested)), grid),
            _panel(view),
            class_="card stacked" if low else "card split",
        ),
        id="map",
    )


def roles_section(view: View) -> Markup:
    """A table for each role that was measured: the heads that score highest."""
    cards = [_role_card(view, role) for role in view.rules]
    if not cards:
        return el(
            "section", el("h2", "Roles"), el("p", "No rule speaks of these scores."), id="roles"
        )
    return el(
        "section",
        el("h2", "Roles"),
        el(
            "p",
            "The scores behind each role that speak most for it; heads that do not pass its rule "
            "are grey. Bars show the mean over prompts, lines its 95 % interval, ticks where the "
            "rule cuts.",
            class_="note",
        ),
        el("div", *cards, class_="cards"),
        id="roles",
    )


def role_mark(view: View, role: str) -> Markup:
    """A role's letter on its colour."""
    return el("span", view.styles[role].letter, class_=f"letter {role_class(view, role)}")


def role_class(view: View, role: str) -> str:
    return f"role-{view.styles[role].letter}"


def head_link(name: str) -> Markup:
    return el("a", name, href=f"#{name}", class_="head")


def _legend(view: View, ringed: bool) -> Markup:
    filters = [
        el(
            "button",
            role_mark(view, role),
            words(role),
            " ",
            el("b", str(view.count(role))),
            type="button",
            class_="chip",
            aria_pressed="false",
            data_role=role,
            title=f"{view.count(role)} heads by their first role, {len(view.having(role))} in all",
        )
        for role in view.rules
    ]
    nothing = el(
        "button", el("span", class_="letter none"), "no role ", el("b", str(view.count(""))),
        type="button", class_="chip", aria_pressed="false", data_role="",
    )  # fmt: skip
    notes = []
    if view.rules:
        colour = role_class(view, next(iter(view.rules)))
        levels = (el("i", class_=f"level-{level}") for level in range(1, len(LEVELS)))
        ramp, unsure = el("span", *levels, class_="ramp"), el("i", class_="unsure")
        notes += [
            el("span", ramp, "score, from the cut on", class_=colour),
            el("span", unsure, "other prompts might decide otherwise", class_=colour),
        ]
    if ringed:
        notes.append(el("span", el("i", class_="ring"), "in a causal test"))
    return el(
        "div",
        el("div", *filters, nothing, class_="chips"),
        el("div", *notes, class_="keys"),
        class_="legend",
    )


def _panel(view: View) -> Markup:
    scores = [
        el(
            "div",
            el("div", el("b", words(name)), el("output"), class_="row"),
            histogram(view, name),
            class_=f"score {_score_class(view, name)}",
            data_score=name,
        )
        for name in view.head_map.scores
    ]
    return el(
        "aside",
        el(
            "div",
            el("h3", f"All {len(view.cells)} heads", id="head"),
            el("p", "Point at a head for its scores.", id="facts"),
            aria_live="polite",
        ),
        el("div", *scores, class_="scores"),
        el(
            "p",
            "Distribution of each score over all heads; the height of a bar goes by the square "
            "root of their number. Dashed: where rules cut. For the selected head: mean, 95 % "
            "interval, and rank.",
            class_="note",
        ),
        class_="panel",
    )


def _score_class(view: View, score: str) -> str:
    roles = [role for role, rule in view.rules.items() if rule.score == score]
    return role_class(view, roles[0]) if roles else "role-none"


def _role_card(view: View, role: str) -> Markup:
    rule, having = view.rules[role], view.having(role)
    primary = view.count(role)
    heads = view.leading(role)[:_SHOWN]
    passed = f"{len(having)} of {len(view.cells)} heads: {words(str(rule))}"
    also = "" if primary == len(having) else f"; {primary} of them as their first role"
    grouped = view.head_map.n_kv_heads < view.head_map.n_heads
    header = [
        ("head", "head"),
        *([("KV", "number")] if grouped else []),
        (words(rule.score), "wide"),
        ("mean", "number"),
        ("95 % interval", "number"),
        ("also", "also"),
    ]
    return el(
        "article",
        el("h3", role_mark(view, role), words(role)),
        el("p", f"{passed}{also}.", class_="note"),
        el(
            "table",
            el("thead", el("tr", *(el("th", name, class_=look) for name, look in header))),
            el("tbody", *(_head_row(view, cell, role, grouped) for cell in heads)),
            class_="sortable",
        ),
        class_=f"card {role_class(view, role)}",
    )


def _head_row(view: View, cell: Cell, role: str, grouped: bool) -> Markup:
    rule = view.rules[role]
    mean, low, high = cell.scores[rule.score]
    others = [role_mark(view, other) for other in cell.roles if other != role]
    known = isfinite(mean)
    value = f"{mean:.6f}" if known else "-1e9"  # sorted behind all others
    said = (f"{mean:.2f}", f"{low:.2f} – {high:.2f}") if known else ("–", "–")
    order = cell.layer * view.head_map.n_heads + cell.head
    return el(
        "tr",
        el("td", head_link(cell.name), data_value=order),
        el("td", str(cell.kv_head), class_="number", data_value=cell.kv_head) if grouped else "",
        el(
            "td",
            bar((mean, low, high), score_scale(view, rule.score, 0.5, 100.0), view.cuts[role]),
            data_value=value,
        ),
        el("td", said[0], class_="number", data_value=value),
        el("td", said[1], class_="number", data_value=f"{low:.6f}" if known else value),
        el("td", *others, class_="also", data_value=len(others)),
        class_=None if role in cell.roles else "below",
    )
