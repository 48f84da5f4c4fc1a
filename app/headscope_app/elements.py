"""What pages are built of: cards, tables, marks of roles, notices. Dash escapes all text."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from headscope.viz.palette import styles
from headscope.viz.view import words

Child = Any  # a component, text, a list of both, or None


def attributes(**given: str) -> dict[str, Any]:
    """Attributes as HTML writes them: `aria_label` is aria-label, `data_toggle` data-toggle."""
    return {name.replace("_", "-"): value for name, value in given.items()}


def heading(title: Child, *under: Child) -> Component:
    """The top of a page; it takes the focus when the page opens."""
    return html.Header(
        [html.H1(title, id="title", tabIndex=-1), *(html.P(each) for each in under if each)],
        className="page-head",
    )


def link(child: Child, href: str, look: str = "", **named: Any) -> Component:
    """A link within the app: the page changes without being loaded anew."""
    return html.A(child, href=href, className=f"go {look}".strip(), **named)


def card(
    title: str, *children: Child, tools: Child = None, note: str = "", wide: bool = False
) -> Component:
    """A part of a page under a title of its own."""
    return html.Section(
        [
            html.Div([html.H2(title), html.Div(tools, className="tools")], className="card-head"),
            html.P(note, className="note") if note else None,
            *children,
        ],
        className="card wide" if wide else "card",
    )


def notice(title: str, *children: Child, kind: str = "empty") -> Component:
    """What is shown in the place of something that is not there: kind "empty" or "error"."""
    role = "alert" if kind == "error" else "status"
    return html.Div(
        [html.H2(title), *(html.P(c) if isinstance(c, str) else c for c in children)],
        className=f"notice {kind}",
        role=role,
    )


def field(label: str, control: Component) -> Component:
    """A control with what it is called."""
    return html.Label([html.Span(label), control], className="field")


def choice(key: str, options: Mapping[str, str]) -> Component:
    """A choice of one part of the state: value -> what it is called. The address sets it."""
    return html.Select(
        [html.Option(told, value=value) for value, told in options.items()], id=f"state-{key}"
    )


def search_field(placeholder: str, value: str) -> Component:
    """Where text is searched for; the key / leads here."""
    return dcc.Input(
        id="state-q", type="search", placeholder=placeholder, value=value, autoComplete="off"
    )


def toggle(key: str, value: str, child: Child, pressed: bool = False) -> Component:
    """A button that takes a value into a part of the state, or out of it."""
    named = attributes(data_toggle=f"{key}={value}", aria_pressed=str(pressed).lower())
    return html.Button(child, type="button", className="chip", **named)


def letter(role: str) -> Component:
    """A role's colour and letter, as on the map."""
    if not role:
        return html.Span(className="letter none", **attributes(aria_hidden="true"))
    return html.Span(
        styles([role])[role].letter,
        className=f"letter role-{css_name(role)}",
        **attributes(aria_hidden="true"),
    )


def role_mark(role: str) -> Component:
    """A role with its letter."""
    return html.Span([letter(role), words(role) if role else "no role"], className="role")


def css_name(role: str) -> str:
    """A role as part of a class name, whatever stands in it."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "-" for c in role)


def table(
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    label: str,
    href: Callable[[Mapping[str, Any]], str] | None = None,
) -> Component:
    """A table with a heading for each column; numbers stand to the right.

    Args:
        columns: what is shown of the rows, and what it is called.
        label: what the table is, for screen readers.
        href: where the first cell of a row leads.
    """
    numeric = {c for c in columns if rows and all(isinstance(r[c], int | float) for r in rows)}
    kinds = {c: "number" if c in numeric else None for c in columns}
    head = html.Tr([html.Th(told, scope="col", className=kinds[c]) for c, told in columns.items()])
    body = []
    for row in rows:
        cells = []
        for position, name in enumerate(columns):
            value = shown(row[name])
            if position == 0 and href is not None:
                value = link(value, href(row))
            cell = html.Th if position == 0 else html.Td
            scope: dict[str, Any] = {"scope": "row"} if position == 0 else {}
            cells.append(cell(value, className=kinds[name], **scope))
        body.append(html.Tr(cells))
    return scrolled_table(head, body, label)


def scrolled_table(
    head: Component, body: Sequence[Component], label: str, tall: bool = False
) -> Component:
    """A table in a place of its own, which keys can scroll.

    Args:
        head: its row of headers.
        body: all other rows.
        tall: whether it has so many rows that it scrolls up and down too.
    """
    return html.Div(
        html.Table([html.Thead(head), html.Tbody(list(body))], **attributes(aria_label=label)),
        className="scroll tall" if tall else "scroll",
        tabIndex=0,
        role="region",
        **attributes(aria_label=label),
    )


def shown(value: Any) -> Any:
    """A value as it is read: three places of a number, nothing for one that is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if isfinite(value) else "–"
    return value if isinstance(value, Component | list) else str(value)


def day(seconds: float) -> str:
    """A time as people of science write it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
