"""Where a panel lies in the picture, with its axes."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from headscope.viz.charts import horizontal, vertical
from headscope.viz.marks import Cells
from headscope.viz.markup import Markup, el, join
from headscope.viz.panel import Panel, Placed
from headscope.viz.svg.letters import clipped, width
from headscope.viz.themes import INK, LINE, MUTED, Inks

_SIZE, _TITLE = 10.5, 12.0
_LONGEST = 132.0  # px of a name beside an axis
_CLOSE = 6.0
Told = Literal["numbers", "names", "nothing", "image"]


@dataclass(frozen=True)
class Plot:
    """A panel and the top left corner of its plot, in px.

    Attributes:
        told: what tooltips of cells and points tell, each of which takes an element; "image" where
            even a shape for each cell would be too much.
    """

    panel: Panel
    left: float = 0.0
    top: float = 0.0
    told: Told = "numbers"

    @property
    def right(self) -> float:
        return self.left + self.panel.width

    @property
    def bottom(self) -> float:
        return self.top + self.panel.height

    @property
    def tooltips(self) -> bool:
        return self.told in ("numbers", "names")

    @cached_property
    def x(self) -> Placed:
        return self.panel.scale("x", self.left)

    @cached_property
    def y(self) -> Placed:
        return self.panel.scale("y", self.top)

    # ---- room around the plot --------------------------------------------------------------

    @cached_property
    def upright(self) -> bool:
        """Whether the names below stand upright, because they are wider than their places."""
        ticks = self.x.ticks()
        if len(ticks) < 2:
            return False
        places = sorted(self.x.px(value) for value, _ in ticks)
        pitch = min(b - a for a, b in pairwise(places))
        return max(width(said, _SIZE) for _, said in ticks) > max(pitch - 4, 1)

    @property
    def before(self) -> float:
        """Px to the left of the plot."""
        ticks = max((min(width(s, _SIZE), _LONGEST) for _, s in self.y.ticks()), default=0.0)
        return ticks + 10 + (18 if self.panel.y.title else 0)

    @property
    def above(self) -> float:
        return 24.0 if self.panel.title else 8.0

    @property
    def below(self) -> float:
        ticks = self.x.ticks()
        tall = max((min(width(s, _SIZE), _LONGEST) for _, s in ticks), default=0.0)
        return (tall + 8 if self.upright else 18.0) + (17 if self.panel.x.title else 2)

    @property
    def after(self) -> float:
        """Px to the right: half of the last number, which is centred on the edge."""
        last = self.x.ticks()[-1:]
        over = width(last[0][1], _SIZE) / 2 if last and not self.upright else 0.0
        return max(10.0, over)

    # ---- drawn -----------------------------------------------------------------------------

    def ground(self, inks: Inks) -> Markup:
        """Lines behind the marks."""
        if not self.panel.grid or any(isinstance(m, Cells) for m in self.panel.marks):
            return Markup("")
        lines = [
            horizontal(self.left, self.right, self.y.px(value), "gridline")
            for value, _ in self.y.ticks()
        ]
        if not self.panel.x.names:
            lines += [
                vertical(self.x.px(value), self.top, self.bottom, "gridline")
                for value, _ in self.x.ticks()
            ]
        bare = [Markup(line.replace(' class="gridline"', "")) for line in lines]
        return el("g", *bare, stroke_width=0.6, **inks(stroke=LINE))

    def axes(self, inks: Inks) -> Markup:
        """Numbers, names and titles around the plot."""
        panel = self.panel
        heading = (
            el("text", clipped(panel.title, _TITLE, panel.width + self.before), x=self.left,
               y=self.top - 9, font_size=_TITLE, font_weight=600, **inks(fill=INK))
            if panel.title else ""
        )  # fmt: skip
        middle, centre = self.left + panel.width / 2, self.top + panel.height / 2
        edge = self.left - self.before + 12
        titles = [
            el("text", panel.x.title, x=middle, y=self.bottom + self.below - 4,
               text_anchor="middle") if panel.x.title else "",
            el("text", clipped(panel.y.title, _SIZE, panel.height + 30), text_anchor="middle",
               transform=f"translate({edge:.1f} {centre:.1f}) rotate(-90)")
            if panel.y.title else "",
        ]  # fmt: skip
        return join(
            heading,
            el("g", *titles, font_size=_SIZE + 0.5, **inks(fill=INK)),
            el("g", *self._beside(), *self._under(), font_size=_SIZE, **inks(fill=MUTED)),
        )

    def _beside(self) -> list[Markup]:
        return [
            el("text", clipped(said, _SIZE, _LONGEST), x=self.left - _CLOSE,
               y=self.y.px(value) + 3.7, text_anchor="end")
            for value, said in self.y.ticks()
        ]  # fmt: skip

    def _under(self) -> list[Markup]:
        found = []
        for value, said in self.x.ticks():
            x, y = self.x.px(value), self.bottom + _CLOSE
            if self.upright:
                turned = f"translate({x + 3.7:.1f} {y:.1f}) rotate(-90)"
                name = clipped(said, _SIZE, _LONGEST)
                found.append(el("text", name, text_anchor="end", transform=turned))
            else:
                found.append(el("text", said, x=x, y=y + 10, text_anchor="middle"))
        return found
