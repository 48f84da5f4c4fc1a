"""Colours as attributes: plain ones that any reader of SVG knows, and a dark set where asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from headscope.viz import palette
from headscope.viz.markup import Markup, el
from headscope.viz.palette import LEVELS, Style

Theme = Literal["light", "dark", "auto"]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_NAMED = {
    "surface": palette.SURFACE,
    "empty": palette.EMPTY,
    "ink": palette.INK,
    "muted": palette.MUTED,
    "line": palette.LINE,
}


@dataclass(frozen=True)
class Paint:
    """Looks up colours by name: those of the palette, and "R3" and "R3t" for a cell and its letter.

    In the theme "auto" an element holds the light colour and a class, and one style sheet turns
    the classes dark where the reader's screen is; what ignores style sheets stays light.
    """

    theme: Theme
    styles: Mapping[str, Style]

    def __call__(self, name: str, attribute: Literal["fill", "stroke"] = "fill") -> dict[str, str]:
        light, dark = self._colours(name)
        if self.theme == "dark":
            return {attribute: dark}
        if self.theme == "light" or light == dark:
            return {attribute: light}
        return {attribute: light, "class_": _class(name, attribute)}

    def style(self) -> Markup:
        """The dark colours, for the theme "auto"."""
        if self.theme != "auto":
            return Markup("")
        kinds = [
            *((name, "fill") for name in _NAMED),
            *((name, "stroke") for name in _NAMED),
            *(
                (f"{style.letter}{level}{kind}", "fill")
                for style in self.styles.values()
                for level in range(len(LEVELS))
                for kind in ("", "t")
            ),
        ]
        rules = []
        for name, attribute in kinds:
            light, dark = self._colours(name)
            if light != dark:
                rules.append(f".{_class(name, attribute)}{{{attribute}:{dark}}}")
        media = "@media screen and (prefers-color-scheme: dark)"
        return el("style", Markup(f"{media}{{{''.join(rules)}}}"))

    def _colours(self, name: str) -> tuple[str, str]:
        if name in _NAMED:
            return _NAMED[name]["light"], _NAMED[name]["dark"]
        style = next(s for s in self.styles.values() if s.letter == name[0])
        level = int(name[1])
        if name.endswith("t"):
            return style.text(level, "light"), style.text(level, "dark")
        return style.fill(level, "light"), style.fill(level, "dark")


def _class(name: str, attribute: str) -> str:
    return f"hs-{name}" if attribute == "fill" else f"hs-{name}-line"
