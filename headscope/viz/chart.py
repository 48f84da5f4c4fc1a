"""A figure as data: drawn as a static SVG, or as an interactive plotly figure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.viz.paint import Theme
from headscope.viz.palette import Pair
from headscope.viz.palette import Theme as Surface
from headscope.viz.panel import Panel
from headscope.viz.svg import chart_svg

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Key:
    """An entry of the key: a colour of cells, with the letter that they bear."""

    name: str
    colour: Pair
    letter: str = ""


@dataclass(frozen=True, eq=False)
class Chart:
    """What a figure shows, whoever draws it.

    Attributes:
        name: what it shows, in one sentence; its heading and what a screen reader says.
        panels: plots, row by row.
        columns: how many stand beside each other.
        key: what colours of cells mean; series with a name are told without it.
        note: how to read it; "" for nothing.
        drawing: a static picture made for this figure alone, which `svg` gives instead of its own.
    """

    name: str
    panels: tuple[Panel, ...]
    columns: int = 1
    key: tuple[Key, ...] = ()
    note: str = ""
    drawing: Callable[[Theme], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.panels:
            raise HeadscopeError("A chart needs something to show; give it one panel at least.")

    def svg(self, theme: Theme = "light") -> str:
        """A static picture that stands alone: no script, font or link.

        Args:
            theme: "light", "dark", or "auto" for the reader's own, light where that is not known.
        """
        check_theme(theme, ("light", "dark", "auto"))
        return self.drawing(theme) if self.drawing is not None else chart_svg(self, theme)

    def interactive(self, theme: Surface = "light") -> "go.Figure":
        """The same as a plotly figure: zoom, and numbers under the pointer.

        Raises:
            HeadscopeError: plotly is not installed.
        """
        check_theme(theme, ("light", "dark"))
        from headscope.viz.interactive import chart_figure

        return chart_figure(self, theme)

    def save(self, path: str | PathLike[str], theme: Theme = "light") -> Path:
        """Write it as .svg, or as an interactive .html file that needs no network.

        Raises:
            HeadscopeError: the name ends otherwise, or the file cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".svg":
            content = self.svg(theme)
        elif kind in (".html", ".htm"):
            from headscope.viz.interactive import figure_page

            surface: Surface = "dark" if theme == "dark" else "light"
            content = figure_page(self.interactive(surface), self.name)
        else:
            raise HeadscopeError(f"{path.name} says no format; end it in .svg or in .html.")
        storage.write(path, content.encode())
        return path

    def _repr_html_(self) -> str:
        """For notebooks: static, so that it is there offline and after reopening."""
        return self.svg()


def check_theme(theme: str, known: tuple[str, ...]) -> None:
    """Refuse a theme that there is not.

    Raises:
        HeadscopeError: it names those there are.
    """
    if theme not in known:
        raise HeadscopeError(f"There is no theme {theme!r}; choose {' or '.join(known)}.")
