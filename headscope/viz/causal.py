"""The parts of a report that show causal tests."""

from collections.abc import Sequence

import numpy as np

from headscope.evals.validation import Condition, Validation
from headscope.heads import label
from headscope.viz.charts import Row, dots, span
from headscope.viz.heads_section import head_link, role_class
from headscope.viz.markup import Markup, el, join
from headscope.viz.view import View, words

PARTS = {
    "all": "at all positions",
    "prefill": "on the prompt",
    "decode": "on answer tokens",
    "answer": "where the answer is made",
}
MODES = {
    "zero": "the head's output is set to 0",
    "mean": "the head's output is set to its mean over reference tokens",
    "resample": "the head's output is replaced by its output at a random reference token",
    "uniform": "the head attends evenly to all that it may see",
}
CONDITIONS = {
    "base": "nothing ablated",
    "tested": "tested heads",
    "uniform": "random heads",
    "layer_matched": "random, same layers",
}


def causal_section(view: View, validations: Sequence[Validation]) -> Markup:
    """Every causal test; a hint how to make one if there is none."""
    if not validations:
        content = el(
            "p",
            "None was made of this map, so nothing here says that the model needs any of these "
            "heads. ",
            el("code", "headscope.validate(model, head_map)"),
            " makes one.",
            class_="card",
        )
    else:
        content = join(*(_card(view, validation) for validation in validations))
    return el("section", el("h2", "Causal tests"), content, id="tests")


def title(validation: Validation) -> str:
    """ "Zero ablation of 5 retrieval heads at all positions"."""
    n = len(validation.tested)
    role = f"{words(validation.role)} " if validation.role else ""
    heads = f"{n} {role}head{'' if n == 1 else 's'}"
    where = PARTS.get(validation.part, validation.part)
    return f"{validation.mode.capitalize()} ablation of {heads} {where}"


def claim(validation: Validation) -> str:
    """The test's claim, or why it makes none."""
    if not validation.done:
        return "No prompt has been measured yet."
    if not validation.p_values():
        return "Without control sets there is nothing to compare with, so no claim is made."
    return validation.claim()


def conditions(validation: Validation) -> tuple[list[str], list[list[str]]]:
    """The test's table, one row a kind of condition: its header, and its rows as they are read."""
    header = ["", "sets", "exact match", "log-probability", "change in nats", "95 % interval"]
    rows = []
    for row in validation.table().to_dict("records"):
        exact = f"{row['exact']:.2f} ({row['exact.low']:.2f} – {row['exact.high']:.2f})"
        interval = f"{_nats(row['logp_change.low'])} to {_nats(row['logp_change.high'])}"
        change = [_nats(row["logp_change"]), interval]
        name = CONDITIONS[row["condition"]]
        told = change if row["condition"] != "base" else ["", ""]
        rows.append([name, str(row["sets"]), exact, _nats(row["logp"]), *told])
    return header, rows


def exact_chart(validation: Validation) -> Markup:
    """Exact match of every condition."""
    rows = _rows(validation, "exact", [_exact(c) for c in validation.conditions])
    return _chart("Exact match", rows, 0.0, 1.0)


def change_chart(validation: Validation) -> Markup:
    """What every condition does to the log-probability of the answer."""
    base = next(c for c in validation.conditions if c.kind == "base")
    changes = [float(np.mean(np.subtract(c.logp, base.logp))) for c in validation.conditions]
    rows = _rows(validation, "logp_change", changes)
    low, high = span(v for row in rows for v in (*row.value, *row.singles))
    return _chart("Change of the answer's log-probability, nats", rows, low, high)


def _card(view: View, validation: Validation) -> Markup:
    parts = [
        el("h3", title(validation)),
        el("p", claim(validation), class_="claim"),
        _facts(validation),
    ]
    if validation.done:
        parts += [
            el(
                "div",
                exact_chart(validation),
                change_chart(validation),
                class_="charts",
            ),
            el(
                "p",
                "Lines: 95 % intervals over prompts (Wilson for exact match of one set; for "
                "random sets, their range). Thin ticks: each random set.",
                class_="note",
            ),
            el("div", _table(validation), class_="scroll"),
            _p_values(validation),
        ]
    role = validation.role
    colour = role_class(view, role) if role in view.styles else ""
    return el("article", *parts, class_=f"card test {colour}".strip())


def _table(validation: Validation) -> Markup:
    header, rows = conditions(validation)
    return el(
        "table",
        el("thead", el("tr", *(el("th", name) for name in header))),
        el("tbody", *(el("tr", *(el("td", cell) for cell in row)) for row in rows)),
        class_="numbers",
    )


def _facts(validation: Validation) -> Markup:
    heads = join(*(join(head_link(label(head)), " ") for head in validation.tested))
    total, done = len(validation.digests), validation.done
    family = validation.prompts.get("family", "")
    prompts = f"{done} {family} prompts ({parameters(validation.prompts)})"
    if done < total:
        prompts += f"; {total - done} more are not measured yet"
    facts = {
        "Tested heads": heads,
        "Ablation": f"{validation.mode}: {MODES.get(validation.mode, '')}",
        "Part": f"{validation.part}: {PARTS.get(validation.part, '')}",
        "Prompts": prompts,
        "Seed": str(validation.seed),
    }
    return el("dl", *(join(el("dt", k), el("dd", v)) for k, v in facts.items()), class_="pairs")


def parameters(settings: dict[str, object]) -> str:
    """Settings of a prompt family in one line, without what is told beside it."""
    return ", ".join(
        f"{words(name)} {_setting(value)}"
        for name, value in settings.items()
        if name not in ("family", "samples") and value is not None
    )


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(map(str, value))
    return str(value)


def _chart(name: str, rows: list[Row], low: float, high: float) -> Markup:
    return el("figure", el("figcaption", name), dots(rows, low, high, name), style="margin:0")


def _rows(validation: Validation, column: str, singles: Sequence[float]) -> list[Row]:
    """A chart's rows from a column of the table and what each single condition came to."""
    return [
        Row(
            label=CONDITIONS[row["condition"]],
            value=(row[column], row[f"{column}.low"], row[f"{column}.high"]),
            look=row["condition"],
            singles=[
                value
                for condition, value in zip(validation.conditions, singles, strict=True)
                if condition.kind == row["condition"] and row["sets"] > 1
            ],
        )
        for row in validation.table().to_dict("records")
    ]


def _exact(condition: Condition) -> float:
    return float(np.mean(condition.exact))


def _p_values(validation: Validation) -> Markup:
    p = validation.p_values()
    said = []
    for kind in ("uniform", "layer_matched"):
        sets = sum(condition.kind == kind for condition in validation.conditions)
        if sets:
            said.append(
                f"Against {CONDITIONS[kind]} ({sets} sets): empirical p = "
                f"{p[f'{kind}.logp']:.3f} for log-probability, {p[f'{kind}.exact']:.3f} for exact "
                f"match; {sets} sets allow no p below {1 / (1 + sets):.3f}."
            )
    return el("p", " ".join(said), class_="note")


def _nats(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
