"""What head maps and causal tests look like in a notebook."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from headscope.evals.evaluation import Evaluation
from headscope.evals.validation import Validation
from headscope.explanation import Explanation
from headscope.headmap import HeadMap
from headscope.viz import box, evaluation_tables, figures
from headscope.viz import causal_tables as tables
from headscope.viz.causal import claims, heading, several, title
from headscope.viz.figures import ablation, dose, specificity
from headscope.viz.head_map import Drawing, affordable
from headscope.viz.markup import Markup, el, join
from headscope.viz.palette import LEVELS
from headscope.viz.view import View, words

_SHOWN = 4


def head_map_repr(head_map: HeadMap) -> str:
    """The head map, and the best heads of every role."""
    tooltips = affordable(head_map)
    view = View.of(head_map, intervals=tooltips == "scores")
    drawing = Drawing(view, head_map.info.model.name, tooltips=tooltips)
    rows = [
        (_mark(view, role), words(str(rule)), _best(view, role))
        for role, rule in view.rules.items()
    ]
    table = box.table(("role", "rule", f"first {_SHOWN} of its heads, with their scores"), rows)
    return box.box(drawing.svg(), table if rows else "")


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
    return box.box(
        box.title(title),
        box.scrolled(names, evidence) if evidence else "",
        box.drawing(figures.head_ranks(found)),
        box.scrolled(("other score", "rank"), others) if others else "",
    )


def validation_repr(validation: Validation) -> str:
    """The claims, and what they rest on: charts and tables of all evals, then of each by itself."""
    parts = [box.title(title(validation)), *map(box.claim, claims(validation))]
    if several(validation):
        parts += [box.drawing(specificity(validation))]
        parts.append(box.scrolled(*tables.specificity(validation)))
    for task, measured in enumerate(validation.tasks):
        if not measured.done:
            continue
        parts += [box.line(heading(validation, task), "font-weight:600;margin-top:16px")]
        parts.append(box.drawing(ablation(validation, task)))
        said = (tables.gated(validation, task), tables.p_note(validation, task))
        parts += [box.note(each) for each in said if each]
        parts.append(box.scrolled(*tables.conditions(validation, task)))
        if len(validation.doses(task)) > 1:
            parts.append(box.drawing(dose(validation, task)))
            parts.append(box.scrolled(*tables.doses(validation, task)))
    return box.box(*parts)


def evaluation_repr(evaluation: Evaluation) -> str:
    """All questions of each eval, then by length where there are several, then the claims."""
    results = evaluation_tables.results(evaluation)
    head = box.title(f"Evals of {evaluation.model}")
    said = map(box.claim, evaluation_tables.said(evaluation))
    picture = [box.drawing(figures.evaluation(evaluation))] if results else []
    return box.box(head, *said, *picture, *(box.scrolled(*each) for each in results))


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
