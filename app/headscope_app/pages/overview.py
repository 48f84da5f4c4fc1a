"""All runs: what there is, how it was made, and a word on what cannot be opened."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import dash
from dash import Input, Output, html
from dash.development.base_component import Component

from headscope_app.elements import (
    attributes,
    card,
    choice,
    day,
    field,
    heading,
    link,
    notice,
    search_field,
)
from headscope_app.library import Entry, Library
from headscope_app.listing import KINDS
from headscope_app.state import State

PATH = "/"
TITLE = "Runs"
KEYS: tuple[str, ...] = ()

_STATES = {"complete": "complete", "running": "not finished", "damaged": "cannot be opened"}
_SORTS = {
    "": ("newest first", lambda entry: -entry.changed),
    "name": ("by name", lambda entry: entry.name),
    "model": ("by model", lambda entry: (_model(entry), entry.name)),
    "probes": ("most scores first", lambda entry: -len(entry.info.scores if entry.info else ())),
    "heads": ("most heads first", lambda entry: -_heads(entry)),
}


def layout(library: Library, state: State) -> Component:
    """Controls, and the list that they filter."""
    entries = library.runs()
    if not entries:
        return _empty(library)
    models = sorted({_model(entry) for entry in entries if entry.info})
    return html.Div(
        [
            heading("Runs", _count(entries, library)),
            html.Div(
                [
                    field("Search", search_field("name, model, score …  ( / )", state.search)),
                    field("Model", choice("model", {"": "all"} | {name: name for name in models})),
                    field("Order", choice("sort", {k: told for k, (told, _) in _SORTS.items()})),
                ],
                className="controls",
            ),
            html.Div(listed(entries, state), id="runs"),
            _files(library),
            *(html.P(note, className="note") for note in library.listing().notes),
        ],
        className="page",
    )


def register(app: dash.Dash, library: Library) -> None:
    @app.callback(Output("runs", "children"), Input("state", "data"), prevent_initial_call=True)
    def filtered(seen: dict[str, Any]) -> Any:
        if seen.get("path") != PATH:
            return dash.no_update
        return listed(library.runs(), State.of(seen))


def listed(entries: Sequence[Entry], state: State) -> Component:
    """The runs that a state asks for, in its order."""
    words = state.search.casefold().split()
    chosen = [
        entry
        for entry in entries
        if (not state.model or _model(entry) == state.model)
        and all(word in _text(entry) for word in words)
    ]
    _, key = _SORTS.get(state.sort, _SORTS[""])
    chosen.sort(key=key)
    if not chosen:
        return notice(
            "No run is like that.", "Take something out of the search, or choose all models."
        )
    columns = ("Run", "Model", "Heads", "Scores", "Also there", "Made")
    head = html.Tr([html.Th(name, scope="col") for name in columns])
    return html.Div(
        html.Table(
            [html.Thead(head), html.Tbody([_row(entry, state) for entry in chosen])],
            className="runs",
            **attributes(aria_label=f"{len(chosen)} runs"),
        ),
        className="scroll card",
    )


def _row(entry: Entry, state: State) -> Component:
    state_mark = html.Span(_STATES[entry.state], className=f"state {entry.state}")
    if entry.info is None or entry.state != "complete":
        told = entry.problem or "Run its command again to finish it."
        if entry.info and entry.info.command and not entry.problem:
            told = [told, " ", html.Code(entry.info.command)]
        return html.Tr(
            [
                html.Th([entry.name, state_mark], scope="row"),
                html.Td(entry.info.model.name if entry.info else "", className="model"),
                html.Td(told, colSpan=3, className="problem"),
                html.Td(day(entry.changed), className="when"),
            ],
            className="closed",
        )
    info = entry.info
    model = info.model
    grouped = f", {model.n_kv_heads} KV" if model.n_kv_heads < model.n_heads else ""
    scores = list(info.scores)
    return html.Tr(
        [
            html.Th(link(entry.name, State(run=entry.id).link("/run")), scope="row"),
            html.Td(model.name, className="model"),
            html.Td(f"{len(model.layers)} × {model.n_heads}{grouped}", className="when"),
            html.Td(
                [html.B(str(len(scores))), html.Span(", ".join(scores), className="few")],
                className="scores",
                title=", ".join(scores),
            ),
            html.Td(_also(entry, info.kind == "imported")),
            html.Td(_made(entry), className="when"),
        ]
    )


def _also(entry: Entry, imported: bool) -> list[Component]:
    marks: list[Component] = [html.Span("imported", className="mark")] if imported else []
    for kind in dict.fromkeys(entry.files):
        n = entry.files.count(kind)
        told = f"{n} × {KINDS[kind]}" if n > 1 else KINDS[kind]
        marks.append(html.Span(told, className="mark"))
    return marks


def _files(library: Library) -> Component | None:
    """Results that lie in no run."""
    loose = library.files("")
    if not loose:
        return None
    rows = [
        html.Tr([html.Th(place.name, scope="row"), html.Td(KINDS[place.kind])]) for place in loose
    ]
    return card(
        "Other results",
        html.Table(html.Tbody(rows), **attributes(aria_label="Other results")),
        note="Files of results that lie in no run folder; tests are shown under Tests.",
    )


def _empty(library: Library) -> Component:
    where = ", ".join(folder.name or "/" for folder in library.roots.folders)
    return html.Div(
        [
            heading("Runs"),
            notice(
                f"No runs in {where} yet.",
                "A run is what a scan of a model leaves: a folder with the scores of every head. "
                "Make the first one with the built-in model, in about two minutes:",
                html.Pre(f"headscope scan smollm2 --out {where.split(', ')[0]}/first"),
                "It appears here when it is done; there is no need to start the app again.",
                *(html.P(note, className="note") for note in library.listing().notes),
            ),
        ],
        className="page",
    )


def _count(entries: Sequence[Entry], library: Library) -> str:
    models = len({_model(entry) for entry in entries if entry.info})
    closed = sum(entry.state != "complete" for entry in entries)
    told = f"{_number(len(entries), 'run')} of {_number(models, 'model')}"
    return f"{told}, {closed} of them not finished or damaged" if closed else told


def _number(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _model(entry: Entry) -> str:
    return entry.info.model.name if entry.info else ""


def _heads(entry: Entry) -> int:
    return len(entry.info.model.layers) * entry.info.model.n_heads if entry.info else 0


def _text(entry: Entry) -> str:
    """What a search looks through."""
    parts = [entry.name, entry.state, *entry.files]
    if entry.info is not None:
        parts += [entry.info.model.name, entry.info.model.spec, entry.info.command]
        parts += [*entry.info.scores, *entry.info.probes]
    return " ".join(parts).casefold()


def _made(entry: Entry) -> str:
    created = entry.info.created if entry.info else ""
    try:
        return day(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return day(entry.changed)
