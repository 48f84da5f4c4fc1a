"""The pages, in the order in which they are linked to.

A page is a module with

- `PATH`, its place in the URL, and `TITLE`, what it is called;
- `KEYS`, the parts of the URL's query that make it another page: it is then laid out anew, while
  other parts change what stands on it by its callbacks; "theme" where pictures are drawn for one;
- `layout(library, state) -> Component`, which may raise `HeadscopeError`: the sentence is then
  what the page shows;
- `register(app, library)`, its callbacks. They may raise too: `errors.show` puts the message on
  the page. What they read of the state comes from the store `state` (see `State.of`).
"""

from typing import Protocol

import dash
from dash.development.base_component import Component

from headscope_app.library import Library
from headscope_app.pages import (
    compare,
    head,
    new_scan,
    overview,
    planner,
    probes,
    run,
    tests,
)
from headscope_app.state import State


class Page(Protocol):
    @property
    def PATH(self) -> str: ...

    @property
    def TITLE(self) -> str: ...

    @property
    def KEYS(self) -> tuple[str, ...]: ...

    def layout(self, library: Library, state: State) -> Component: ...

    def register(self, app: dash.Dash, library: Library) -> None: ...


PAGES: tuple[Page, ...] = (overview, run, head, probes, compare, tests, planner, new_scan)
