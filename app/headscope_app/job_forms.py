"""Forms that start a scan or a validation."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from headscope.headmap import HeadMap
from headscope.viz.view import words
from headscope_app.elements import attributes, card, field
from headscope_app.library import Entry

Catalogue = Mapping[str, Mapping[str, Mapping[str, str]]]
_PARTS = {
    "all": "all rows",
    "prefill": "the prompt's rows",
    "decode": "rows after the prompt",
    "answer": "the answer's rows",
}


def scan_form(models: Sequence[str], folders: Sequence[str]) -> Component:
    """A model, a name for its run, and which probes.

    Args:
        models: that runs were made of.
        folders: names of the folders that a run may be written to.
    """
    return card(
        "Scan a model",
        html.Div(
            [
                field("Name of the run", _text("scan-name", "", "smollm2-first")),
                field("Model", _text("scan-model", "smollm2", "", "known-models")),
                field("Prompts of each kind", _whole("scan-samples", 6)),
                field("Lengths, in tokens", _text("scan-lengths", "", "each probe's own")),
                field("Seed", _whole("scan-seed", 0, least=0)),
                _folder(folders),
            ],
            className="controls form",
        ),
        html.Datalist([html.Option(value=each) for each in models], id="known-models"),
        html.Details(
            [
                html.Summary("Probes: all that take no training, unless some are chosen"),
                _checklist("scan-probes"),
            ],
            className="more",
        ),
        html.Div(
            html.Button("Start the scan", id="start-scan", type="button", className="primary"),
            className="row start",
        ),
        note="smollm2 is built in. Any Hugging Face causal language model can be named by its id; "
        "models of the runs here, and folders inside the runs folder, by their path.",
    )


def described(catalogue: Catalogue, kind: str) -> list[dict[str, Any]]:
    """Options of a checklist: every probe, or every eval, with what it does.

    Args:
        kind: "probes" or "evals".
    """
    return [
        {"label": _option(name, each["does"], each["cost"] == "training"), "value": name}
        for name, each in catalogue[kind].items()
    ]


def validation_form(runs: Sequence[Entry], chosen: str, head_map: HeadMap | None) -> Component:
    """A run, its heads, and what ablating them should do.

    Args:
        chosen: id of the run that is validated.
        head_map: its map.
    """
    complete = [{"label": run.name, "value": run.id} for run in runs if run.state == "complete"]
    if not complete:
        return card(
            "Validate a run",
            html.P("There is no finished run to validate yet.", className="note"),
        )
    return card(
        "Validate a run",
        html.Div(
            [
                _labelled("Run", dcc.Dropdown(
                    complete, chosen or complete[0]["value"], id="validate-run", clearable=False,
                    searchable=False,
                )),
                _labelled("Heads: the top of", dcc.Dropdown(
                    role_options(head_map), first_role(head_map), id="validate-role",
                    clearable=False,
                )),
                field("How many", _whole("validate-k", 5)),
                field("or these heads", _text("validate-heads", "", "L17H3, L18H6")),
            ],
            className="controls form",
        ),
        html.Div(
            [
                _labelled("Rows that are ablated", dcc.Dropdown(
                    [{"label": told, "value": part} for part, told in _PARTS.items()], "all",
                    id="validate-part", clearable=False, searchable=False,
                )),
                field("Questions of each eval", _whole("validate-samples", 8)),
                field("Random sets of each kind", _whole("validate-controls", 19, most=99)),
                field("Lengths, in tokens", _text("validate-lengths", "", "the evals' own")),
                field("Seed", _whole("validate-seed", 0, least=0)),
            ],
            className="controls form",
        ),
        html.Details(
            [
                html.Summary("Evals: needles, unless others are chosen"),
                _labelled("Should change", _checklist("validate-tasks")),
                _labelled("Should stay as they are", _checklist("validate-spared", "few-words")),
            ],
            className="more",
        ),
        html.Div(
            html.Button(
                "Start the validation", id="start-validation", type="button", className="primary"
            ),
            className="row start",
        ),
        note="Ablates the heads, and random ones, on questions that found none of them. 19 random "
        "sets allow p = 0.05.",
    )  # fmt: skip


def role_options(head_map: HeadMap | None) -> list[dict[str, Any]]:
    """Scores of a run by which its top heads are taken."""
    names = [] if head_map is None else list(head_map.scores)
    return [{"label": words(name), "value": name} for name in names]


def first_role(head_map: HeadMap | None) -> str | None:
    """Retrieval, where it was measured."""
    names = [] if head_map is None else list(head_map.scores)
    return "retrieval" if "retrieval" in names else next(iter(names), None)


def _option(name: str, does: str, trains: bool) -> Component:
    marked = [html.Span("trains, takes long", className="mark")] if trains else []
    return html.Span([html.B(name), " ", *marked, html.Span(does, className="few")])


def _labelled(label: str, control: Component) -> Component:
    """A group under a name: Dash's own choices are no single control."""
    return html.Div(
        [html.Span(label), control],
        className="field",
        role="group",
        **attributes(aria_label=label),
    )


def _checklist(id: str, look: str = "") -> Component:
    """Empty until the names have come from another process."""
    return dcc.Checklist([], [], id=id, className=f"choices {look}".strip())


def _folder(folders: Sequence[str]) -> Component:
    """Where to, if there are several folders."""
    options = [{"label": name, "value": place} for place, name in enumerate(folders)]
    control = dcc.Dropdown(options, 0, id="scan-folder", clearable=False, searchable=False)
    return html.Div(_labelled("Folder", control), hidden=len(folders) < 2)


def _text(id: str, value: str, placeholder: str, listed: str = "") -> Component:
    return dcc.Input(
        id=id, type="text", value=value, placeholder=placeholder, autoComplete="off", list=listed
    )


def _whole(id: str, value: int, least: int = 1, most: int = 1_000_000) -> Component:
    return dcc.Input(id=id, type="number", min=least, max=most, step=1, value=value)
