"""Colours as attributes: plain ones that any reader of SVG knows, and a dark set where asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from headscope.viz import palette
from headscope.viz.markup import Markup, el
from headscope.viz.palette import LEVELS, Pair, Style

Theme = Literal["light", "dark", "auto"]
Attribute = Literal["fill", "stroke"]
DARK = "@media screen and (prefers-color-scheme: dark)"
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

    def __call__(self, name: str, attribute: Attribute = "fill") -> dict[str, str]:
        pair = self._colours(name)
        if self.theme == "dark":
            return {attribute: pair.dark}
        if self.theme == "light" or pair.light == pair.dark:
            return {attribute: pair.light}
        return {attribute: pair.light, "class_": class_of(pair, attribute)}

    def style(self) -> Markup:
        """The dark colours, for the theme "auto"."""
        if self.theme != "auto":
            return Markup("")
        kinds: list[tuple[str, Attribute]] = [
            *((name, "fill") for name in _NAMED),
            *((name, "stroke") for name in _NAMED),
            *(
                (f"{style.letter}{level}{kind}", "fill")
                for style in self.styles.values()
                for level in range(len(LEVELS))
                for kind in ("", "t")
            ),
        ]
        rules: dict[str, None] = {}
        for name, attribute in kinds:
            pair = self._colours(name)
            if pair.light != pair.dark:
                rules[f".{class_of(pair, attribute)}{{{attribute}:{pair.dark}}}"] = None
        return el("style", Markup(f"{DARK}{{{''.join(rules)}}}"))

    def _colours(self, name: str) -> Pair:
        if name in _NAMED:
            return Pair.named(_NAMED[name])
        style = next(s for s in self.styles.values() if s.letter == name[0])
        level = int(name[1])
        if name.endswith("t"):
            return Pair(style.text(level, "light"), style.text(level, "dark"))
        return Pair(style.fill(level, "light"), style.fill(level, "dark"))


def class_of(pair: Pair, attribute: Attribute) -> str:
    """A class that says what it means, so that no two pictures in a document mean different things
    by one."""
    return f"hs-{attribute[0]}{pair.light[1:]}{pair.dark[1:]}"
