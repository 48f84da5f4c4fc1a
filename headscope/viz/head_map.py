"""The head map as one static SVG."""

from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.viz.grid import Grid
from headscope.viz.legend import legend
from headscope.viz.markup import Markup, el, join, number
from headscope.viz.paint import FONT, Paint, Theme
from headscope.viz.view import Cell, View, words

Tooltips = Literal["scores", "role", "name", "none"]

_LEAST_WIDTH = 460.0
_SCORES_UP_TO = 4_000  # of all heads: a notebook is saved with its pictures
_ROLES_UP_TO = 1_200  # heads


def head_map_svg(
    head_map: HeadMap,
    *,
    title: str | None = None,
    theme: Theme = "light",
    tooltips: Tooltips = "scores",
    ringed: Collection[Head] = (),
) -> str:
    """Every head as a cell: its role as colour and letter, its confidence as depth of colour.

    The image stands alone: it has its own background, and no script, font or link.

    Args:
        title: its heading; the model's name if left out, "" for none.
        theme: "auto" follows the reader's, light where that is not known.
        tooltips: all scores of a head, or only its roles, which makes a third of the size, or its
            name, or none, which makes a tenth.
        ringed: heads to draw a ring around.
    """
    heading = head_map.info.model.name if title is None else title
    return Drawing(View.of(head_map), heading, theme, tooltips, ringed).svg()


def affordable(head_map: HeadMap) -> Tooltips:
    """The most that tooltips may tell in a picture of less than 300 kB."""
    heads = len(head_map.heads())
    if heads * len(head_map.scores) <= _SCORES_UP_TO:
        return "scores"
    return "role" if heads <= _ROLES_UP_TO else "none"


@dataclass(frozen=True)
class Drawing:
    """A head map to be drawn.

    Attributes:
        anchors: whether a cell's id is its head's name.
        key: whether there is a legend.
    """

    view: View
    title: str = ""
    theme: Theme = "light"
    tooltips: Tooltips = "scores"
    ringed: Collection[Head] = ()
    anchors: bool = False
    key: bool = True

    @property
    def grid(self) -> Grid:
        head_map = self.view.head_map
        top = 78.0 if self.title else 26.0
        return Grid(tuple(head_map.layers), head_map.n_heads, head_map.n_kv_heads, top)

    @property
    def paint(self) -> Paint:
        return Paint(self.theme, self.view.styles)

    def svg(self) -> Markup:
        grid, paint, view = self.grid, self.paint, self.view
        width = grid.left + grid.width + 14
        if self.key or self.title:
            width = max(_LEAST_WIDTH, width)
        key, height = Markup(""), grid.top + grid.height + 24
        if self.key:
            key, height = legend(view, paint, 16.0, height + 10, width, bool(self.ringed))
        name = f"Head map of {view.head_map.info.model.name}"
        return el(
            "svg",
            el("title", name),
            el("desc", f"{shape(view.head_map)}: {view.summary()}."),
            paint.style(),
            el("rect", width=width, height=height, rx=6, **paint("surface")),
            self._heading(width),
            self._axes(),
            self._cells(),
            self._rings(),
            key,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width:g} {height:g}",
            width=width,
            height=height,
            role="img",
            aria_label=name,
            font_family=FONT,
            style="max-width:100%;height:auto",
        )

    def _heading(self, width: float) -> Markup:
        if not self.title:
            return Markup("")
        title, room = self.title, int((width - 32) / 9)
        if len(title) > room:
            title = f"{title[: room // 2]}…{title[1 - room // 2 :]}"
        facts = shape(self.view.head_map)
        return join(
            el("text", title, x=16, y=26, font_size=15, font_weight=600, **self.paint("ink")),
            el("text", facts, x=16, y=44, font_size=12, **self.paint("muted")),
        )

    def _axes(self) -> Markup:
        grid = self.grid
        below, edge = grid.top + grid.height + 14, grid.left - 7
        texts = [
            *(_text(n, x, below) for x, n in grid.layer_ticks()),
            *(_text(n, edge, y + 4, "end") for y, n in grid.head_ticks()),
            _text("layer", edge, below, "end"),
            _text("head", edge, grid.top - 8, "end"),
        ]
        lines = []
        if grid.grouped:
            texts.append(_text("KV", 22.0, grid.top - 8))
            for kv_head in range(grid.n_kv_heads):
                start, stop = grid.span(kv_head)
                if stop - start >= 12:
                    texts.append(_text(kv_head, 22.0, (start + stop) / 2 + 4))
                lines.append(el("line", x1=34, x2=34, y1=start, y2=stop))
            for y in grid.separators():
                right = grid.left + grid.width
                lines.append(el("line", class_="kv-separator", x1=34, x2=right, y1=y, y2=y))
        return join(
            el("g", *texts, font_size=10.5, **self.paint("muted")),
            el("g", *lines, **self.paint("line", "stroke")) if lines else "",
        )

    def _cells(self) -> Markup:
        """A group for each head, or without tooltips a path for all heads that look alike."""
        drawn = self._alike() if self.tooltips == "none" else self._each()
        return el(
            "g",
            *drawn,
            class_="cells",
            text_anchor="middle",
            font_weight=600,
            font_size=self.grid.letter or None,
        )

    def _alike(self) -> list[Markup]:
        grid, size = self.grid, number(self.grid.cell)
        rows = {layer: row for row, layer in enumerate(grid.layers)}
        groups: dict[str, list[Cell]] = {}
        for cell in self.view.cells:
            name = f"{self.view.styles[cell.role].letter}{cell.level}" if cell.role else "empty"
            groups.setdefault(name, []).append(cell)
        drawn = []
        for name, cells in groups.items():
            places = [(grid.x(rows[cell.layer]), grid.y(cell.head)) for cell in cells]
            squares = "".join(f"M{number(x)} {number(y)}h{size}v{size}h-{size}z" for x, y in places)
            drawn.append(el("path", d=squares, **self.paint(name)))
            if grid.letter and name != "empty":
                half, low = grid.cell / 2, grid.cell / 2 + grid.letter * 0.36
                letters = (el("text", name[0], x=x + half, y=y + low) for x, y in places)
                drawn.append(el("g", *letters, **self.paint(f"{name}t")))
        return drawn

    def _each(self) -> list[Markup]:
        grid, paint = self.grid, self.paint
        rows = {layer: row for row, layer in enumerate(grid.layers)}
        size = {"width": grid.cell, "height": grid.cell, "rx": grid.corner}
        drawn = []
        for cell in self.view.cells:
            x, y = grid.x(rows[cell.layer]), grid.y(cell.head)
            parts = [el("title", self._tooltip(cell))]
            if not cell.role:
                parts.append(el("rect", x=x, y=y, **size, **paint("empty")))
            else:
                style = self.view.styles[cell.role]
                name = f"{style.letter}{cell.level}"
                unsure = (
                    {} if cell.level else {"stroke": style.on("dark"), "stroke_dasharray": "2 2"}
                )
                parts.append(el("rect", x=x, y=y, **size, **unsure, **paint(name)))
                if grid.letter:
                    at = {"x": x + grid.cell / 2, "y": y + grid.cell / 2 + grid.letter * 0.36}
                    parts.append(el("text", style.letter, **at, **paint(f"{name}t")))
            drawn.append(el("g", *parts, id=cell.name if self.anchors else None))
        return drawn

    def _rings(self) -> Markup:
        grid = self.grid
        rows = {layer: row for row, layer in enumerate(grid.layers)}
        rings = [
            el(
                "rect",
                x=grid.x(rows[cell.layer]) - 0.5,
                y=grid.y(cell.head) - 0.5,
                width=grid.cell + 1,
                height=grid.cell + 1,
                rx=grid.corner,
            )
            for cell in self.view.cells
            if cell.key in self.ringed
        ]
        if not rings:
            return Markup("")
        look = {"fill": "none", "stroke_width": 1.6, "pointer_events": "none"}
        return el("g", *rings, **look, **self.paint("ink", "stroke"))

    def _tooltip(self, cell: Cell) -> str:
        if self.tooltips == "name":
            return cell.name
        shared = f", KV head {cell.kv_head}" if self.grid.grouped else ""
        roles = ", ".join(map(words, cell.roles)) or "no role"
        if self.tooltips == "role":
            return f"{cell.name}{shared}: {roles}"
        scores = "\n".join(
            f"{words(name)} {mean:.2f} [{low:.2f}, {high:.2f}]"
            if isfinite(mean)
            else f"{words(name)} not known"
            for name, (mean, low, high) in cell.scores.items()
        )
        return f"{cell.name}{shared}\n{roles}\n\n{scores}"


def shape(head_map: HeadMap) -> str:
    """ "30 layers × 9 heads, 3 KV heads"."""
    heads, kv_heads = head_map.n_heads, head_map.n_kv_heads
    counted = f"{_count(len(head_map.layers), 'layer')} × {_count(heads, 'head')}"
    return f"{counted}, {_count(kv_heads, 'KV head')}" if kv_heads < heads else counted


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _text(value: int | str, x: float, y: float, anchor: str = "middle") -> Markup:
    return el("text", str(value), x=x, y=y, text_anchor=anchor)
