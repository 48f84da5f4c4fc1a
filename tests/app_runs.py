"""Run folders for tests of the app, and pages laid out without a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dash.development.base_component import Component
from made_up import a_map, a_validation
from plotly.utils import PlotlyJSONEncoder

from headscope.headmap import HeadMap
from headscope_app.library import Library
from headscope_app.listing import identity
from headscope_app.pages import PAGES
from headscope_app.shell import laid_out
from headscope_app.state import State


def a_run(folder: Path, head_map: HeadMap | None = None, tested: bool = False) -> str:
    """Save a head map as a run; its id."""
    head_map = head_map or a_map()
    head_map.save(folder)
    if tested:
        a_validation(head_map).save(folder / "validations" / "made.json")
    return identity(folder.resolve())


def page(library: Library, path: str, query: str = "") -> Component:
    """A page as the router lays it out."""
    return laid_out(PAGES, library, path, State.parse(query))[1]


def written(component: Any) -> str:
    """All that is sent of a component."""
    return json.dumps(component, cls=PlotlyJSONEncoder)


def texts(component: Any) -> str:
    """What can be read of a component, in order."""
    return " ".join(" ".join(_texts(component)).split())


def found(component: Any, id: str) -> Any:
    """The component of an id."""
    return next(each for each in walked(component) if getattr(each, "id", None) == id)


def walked(component: Any) -> Iterator[Any]:
    if isinstance(component, list | tuple):
        for each in component:
            yield from walked(each)
    elif isinstance(component, Component):
        yield component
        yield from walked(getattr(component, "children", None))


def _texts(component: Any) -> Iterator[str]:
    if isinstance(component, list | tuple):
        for each in component:
            yield from _texts(each)
    elif isinstance(component, Component):
        yield from _texts(getattr(component, "children", None))
    elif component is not None:
        yield str(component)
