"""Which colours a drawing shows: those for light, for dark, or whichever the reader's screen is."""

from dataclasses import dataclass, field

from headscope.viz import palette
from headscope.viz.markup import Markup, el
from headscope.viz.paint import DARK, Attribute, Theme, class_of
from headscope.viz.palette import Pair

SURFACE, EMPTY, INK, MUTED, LINE = (
    Pair.named(colours)
    for colours in (palette.SURFACE, palette.EMPTY, palette.INK, palette.MUTED, palette.LINE)
)


@dataclass
class Inks:
    """Colours as attributes of elements.

    In the theme "auto" an element holds its light colour and a class named after both colours, and
    `style` turns the classes dark where the screen is.
    """

    theme: Theme
    _used: dict[str, str] = field(default_factory=dict)

    def __call__(self, fill: Pair | None = None, stroke: Pair | None = None) -> dict[str, str]:
        found, classes = {}, []
        asked: list[tuple[Attribute, Pair | None]] = [("fill", fill), ("stroke", stroke)]
        for attribute, pair in asked:
            if pair is None:
                continue
            found[attribute] = pair.dark if self.theme == "dark" else pair.light
            if self.theme == "auto" and pair.light != pair.dark:
                name = class_of(pair, attribute)
                self._used[name] = f"{attribute}:{pair.dark}"
                classes.append(name)
        return found | ({"class_": " ".join(classes)} if classes else {})

    def style(self) -> Markup:
        """The dark colours of everything asked for so far."""
        if self.theme != "auto":
            return Markup("")
        rules = [f".{name}{{{rule}}}" for name, rule in self._used.items()]
        rules.append(".hs-dark{display:inline}.hs-light{display:none}")
        return el("style", Markup(f".hs-dark{{display:none}}{DARK}{{{''.join(rules)}}}"))
