"""The table of the selected heads, and the same as a file."""

import pandas as pd
from dash import html
from dash.development.base_component import Component

from headscope.viz.view import View, words
from headscope_app.elements import letter, notice, shown, table
from headscope_app.state import State

_MOST = 200  # rows on the page; the file has all


def chosen(view: View, state: State) -> pd.DataFrame:
    """The selected heads that the map has, in the order of their selection.

    Columns: name, layer, head, kv_head, role, roles, confidence; mean, low and high of the scores
    that the page shows.
    """
    every = view.head_map.roles().set_index("name")
    names = [name for name in state.selected if name in every.index]
    found = every.loc[names, ["layer", "head", "kv_head", "role", "roles", "confidence"]]
    cells = {cell.name: cell for cell in view.cells}
    for score in dict.fromkeys((state.probe, state.against)):
        if score in view.head_map.scores:
            for place, end in enumerate(("", ".low", ".high")):
                found[f"{score}{end}"] = [cells[name].scores[score][place] for name in names]
    return found.reset_index()


def chosen_table(view: View, state: State) -> Component:
    """The same to look at."""
    found = chosen(view, state)
    if found.empty:
        return notice(
            "No heads are selected.",
            "Click on heads with Shift or Ctrl held, draw a box on the map or over the scatter, or "
            "press Space on the current head.",
        )
    names = [name for name in found.columns if name not in ("layer", "head")]
    columns = {name: words(name).replace(".", " ") for name in names}
    rows = []
    for row in found.head(_MOST).to_dict("records"):
        row["role"] = html.Span([letter(row["role"]), words(row["role"])], className="role")
        row["roles"] = ", ".join(map(words, row["roles"].split(",")))
        rows.append({name: row[name] for name in columns})
    more = len(found) - len(rows)
    return html.Div(
        [
            table(columns, rows, f"{len(found)} selected heads", lambda r: _to(state, r["name"])),
            html.P(f"{more} more are in the file.", className="note") if more else None,
        ]
    )


def chosen_csv(view: View, state: State) -> str:
    """All rows and columns, numbers in full."""
    return chosen(view, state).to_csv(index=False)


def _to(state: State, name: str) -> str:
    return state.link("/head", head=str(shown(name)))
