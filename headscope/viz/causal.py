"""The parts of a report that show causal tests."""

from collections.abc import Mapping, Sequence

from headscope.evals.conditions import CONTROLS
from headscope.evals.measured import Measured
from headscope.evals.validation import Validation
from headscope.heads import label
from headscope.viz import causal_tables as tables
from headscope.viz.figures import ablation, dose, specificity
from headscope.viz.heads_section import head_link, role_class
from headscope.viz.markup import Markup, el, join
from headscope.viz.picture import picture
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


def claims(validation: Validation) -> list[str]:
    """A sentence for each eval that was measured, and one for each that was not."""
    if not validation.done:
        return ["No question has been measured yet, so no claim is made."]
    missing = [task.task for task in validation.tasks if not task.done]
    return [
        *validation.claims(),
        *(f"No question of {task} has been measured yet." for task in missing),
    ]


def several(validation: Validation) -> bool:
    """Whether there are evals to compare."""
    return sum(task.done > 0 for task in validation.tasks) > 1


def heading(validation: Validation, task: int) -> str:
    """ "needle: should change"."""
    expected = "changes" if task < validation.targets else "spared"
    return f"{validation.tasks[task].task}: {tables.EXPECTED[expected]}"


def _card(view: View, validation: Validation) -> Markup:
    parts = [
        el("h3", title(validation)),
        *(el("p", claim, class_="claim") for claim in claims(validation)),
        _facts(validation),
    ]
    if validation.done:
        if several(validation):
            parts += [
                el("h4", "All evals"),
                picture(specificity(validation)),
                _table(tables.specificity(validation)),
            ]
        for index, measured in enumerate(validation.tasks):
            if measured.done:
                parts += _eval(validation, index)
    role = validation.role
    colour = role_class(view, role) if role in view.styles else ""
    return el("article", *parts, class_=f"card test {colour}".strip())


def _eval(validation: Validation, task: int) -> list[Markup]:
    """One eval: its charts, their table, and the same by dose."""
    said = [tables.gated(validation, task), tables.p_note(validation, task)]
    parts = [
        el("h4", heading(validation, task)),
        picture(ablation(validation, task)),
        *(_note(each) for each in said if each),
        _table(tables.conditions(validation, task)),
    ]
    if len(validation.doses(task)) > 1:
        parts += [picture(dose(validation, task)), _table(tables.doses(validation, task))]
    return parts


def _note(said: str) -> Markup:
    return el("p", said, class_="note")


def _table(table: tables.Table) -> Markup:
    header, rows = table
    written = el(
        "table",
        el("thead", el("tr", *(el("th", name) for name in header))),
        el("tbody", *(el("tr", *(el("td", cell) for cell in row)) for row in rows)),
        class_="numbers",
    )
    return el("div", written, class_="scroll")


def _facts(validation: Validation) -> Markup:
    evals = [el("div", _questions(task)) for task in validation.tasks]
    facts = {
        "Tested heads": join(*(join(head_link(label(head)), " ") for head in validation.tested)),
        "Ablation": f"{validation.mode}: {MODES.get(validation.mode, '')}",
        "Part": f"{validation.part}: {PARTS.get(validation.part, '')}",
        "Evals": join(*evals),
        "Controls": _controls(validation),
        "Seed": str(validation.seed),
    }
    return el("dl", *(join(el("dt", k), el("dd", v)) for k, v in facts.items()), class_="pairs")


def _questions(measured: Measured) -> str:
    """ "needle: 3 of 8 questions (lengths 256 / 512)"."""
    total, done = len(measured.digests), measured.done
    count = f"{done} questions" if done == total else f"{done} of {total} questions"
    settings = parameters(measured.parameters)
    return f"{measured.task}: {count}{f' ({settings})' if settings else ''}"


def _controls(validation: Validation) -> str:
    """ "19 of random heads, 19 of random, same layers", for the number named beforehand."""
    counts = {kind: len(validation.sets(kind)) for kind in CONTROLS}
    said = [
        f"{count} set{'' if count == 1 else 's'} of {tables.CONDITIONS[kind]}"
        for kind, count in counts.items()
        if count
    ]
    return "; ".join(said) or "none, so there is nothing to compare with"


def parameters(settings: Mapping[str, object]) -> str:
    """Settings of prompts in one line, without what is told beside it."""
    said = [
        parameters(value) if isinstance(value, Mapping) else f"{words(name)} {_setting(value)}"
        for name, value in settings.items()
        if not (name in ("family", "samples") and not isinstance(value, Mapping))
        and value not in (None, "", [], (), {})
    ]
    return ", ".join(each for each in said if each)


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(map(str, value))
    return str(value)
