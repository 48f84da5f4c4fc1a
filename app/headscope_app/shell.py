"""What stands around every page: navigation, messages, and the stores that callbacks share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dash import dcc, html
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope_app.elements import attributes, link, notice
from headscope_app.errors import told
from headscope_app.library import Library
from headscope_app.state import State

if TYPE_CHECKING:
    from headscope_app.pages import Page

_KEYS = (
    ("←  →  ↑  ↓", "move to the next head"),
    ("Enter", "open the head, or go back to the map"),
    ("Space", "take the head into the selection, or out of it"),
    ("[  ]", "the score before, the score after"),
    ("/", "search"),
    ("Escape", "leave a field; clear the selection"),
    ("m", "the head map"),
    ("t", "light or dark"),
    ("?", "these keys"),
)


def shell(pages: Sequence["Page"]) -> Component:
    """The frame, empty until the address is read."""
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Store(id="state"),  # {path, search, theme}, as soon as it is still for a moment
            dcc.Store(id="page"),  # the same when the page was laid out
            dcc.Store(id="message"),
            dcc.Store(id="asked"),  # the text whose attention is looked at, from head to head
            dcc.Store(id="keys", data={page.PATH: list(page.KEYS) for page in pages}),
            html.A("Skip to the page", href="#main", className="skip"),
            html.Div(id="nav"),
            html.Div(id="toast", role="alert", className="toast", hidden=True),
            html.Main(id="main", tabIndex=-1, children=_waiting()),
            html.Div(id="said", className="unseen", **attributes(aria_live="polite")),
            _help(),
        ],
        id="app",
    )


def laid_out(
    pages: Sequence["Page"], library: Library, path: str, state: State
) -> tuple[Component, Component]:
    """The navigation and the page of an address; what cannot be shown is said instead."""
    page = next((page for page in pages if path == page.PATH), None)
    nav = navigation(pages, path, state)
    if page is None:
        return nav, notice("There is no such page.", link("All runs", "/"), kind="error")
    try:
        return nav, page.layout(library, state)
    except Exception as error:  # the one place where a page is made
        title = "This cannot be shown." if isinstance(error, HeadscopeError) else "An error."
        again = html.A("Try again", href=state.link(path), className="button")
        back = link("All runs", "/", "button")
        return nav, notice(
            title, told(error), html.Div([again, back], className="row"), kind="error"
        )


def navigation(pages: Sequence["Page"], path: str, state: State) -> Component:
    """Links to all pages, of the same run and selection where they are about a run."""
    links = []
    for page in pages:
        about_run = "run" in page.KEYS
        if about_run and not state.run:
            continue
        here = attributes(aria_current="page") if path == page.PATH else {}
        href = State(
            run=state.run, head=state.head, selected=state.selected, probe=state.probe
        ).link(page.PATH)
        links.append(link(page.TITLE, href if state.run else page.PATH, **here))
    return html.Nav(
        [
            link([_logo(), "headscope"], "/", "brand"),
            html.Div(links, className="links"),
            html.Button("Copy link", id="copy-link", type="button", className="quiet"),
            html.Button(
                "◐", id="toggle-theme", type="button", className="quiet", title="Light or dark (t)",
                **attributes(aria_label="Light or dark"),
            ),
            html.Button(
                "?", id="open-help", type="button", className="quiet", title="Keys (?)",
                **attributes(aria_label="Keys"),
            ),
        ],
        className="top",
        **attributes(aria_label="Pages"),
    )  # fmt: skip


def _logo() -> Component:
    return html.Span(
        [html.I() for _ in range(9)], className="logo", **attributes(aria_hidden="true")
    )


def _waiting() -> Component:
    return html.Div("Loading…", className="waiting", role="status")


def _help() -> Component:
    rows = [html.Tr([html.Th(html.Kbd(keys), scope="row"), html.Td(what)]) for keys, what in _KEYS]
    return html.Dialog(
        [
            html.H2("Keys"),
            html.Table(html.Tbody(rows)),
            html.P(
                "On a map: click for a head, shift-click or ctrl-click for several, draw a box "
                "for many, double-click to open one.",
                className="note",
            ),
            html.Button("Close", id="close-help", type="button"),
        ],
        id="help",
        **attributes(aria_label="Keys"),
    )
