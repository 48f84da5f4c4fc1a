"""A colour and a letter for every role, told apart by any eyes and on any printer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

Theme = Literal["light", "dark"]
Marker = Literal["circle", "square", "triangle", "diamond", "cross", "bar", "none"]

SURFACE: Mapping[Theme, str] = {"light": "#ffffff", "dark": "#15181c"}
EMPTY: Mapping[Theme, str] = {"light": "#f0f2f4", "dark": "#23272d"}
INK: Mapping[Theme, str] = {"light": "#1b1f24", "dark": "#e8eaed"}
MUTED: Mapping[Theme, str] = {"light": "#5c6670", "dark": "#9aa4af"}
LINE: Mapping[Theme, str] = {"light": "#c3cad1", "dark": "#454d57"}

# As far apart to colour-blind eyes as two colours get: what carries towards something, and away.
TOWARDS, AWAY = "#d55e00", "#3b3f9e"

# A colour and a mark each, so that no series depends on its colour alone; of Okabe & Ito too.
SERIES: tuple[tuple[str, Marker], ...] = (
    ("#d55e00", "square"),
    ("#009e73", "triangle"),
    ("#3b3f9e", "diamond"),
    ("#9b6bd3", "cross"),
    ("#e69f00", "bar"),
    ("#56b4e9", "circle"),
    ("#a0522d", "square"),
    ("#cc79a7", "triangle"),
)

LEVELS = (0.2, 0.45, 0.65, 0.82, 1.0)  # how much role colour each level of confidence holds

# Roles of one kind share a colour and differ by letter: not everyone tells more than nine colours
# apart. Seven are from the palette of Okabe & Ito 2008, "Color Universal Design", with their blue
# darkened, because a pale blue would be their sky blue.
_ROLES = {
    "retrieval": ("R", "#d55e00"),
    "razor_retrieval": ("Z", "#d55e00"),
    "induction": ("I", "#3b3f9e"),
    "copying": ("Y", "#3b3f9e"),
    "duplicate_token": ("D", "#cc79a7"),
    "previous_token": ("P", "#009e73"),
    "offset": ("O", "#009e73"),
    "positional": ("N", "#009e73"),
    "contextual": ("C", "#e69f00"),
    "basin": ("B", "#a0522d"),
    "sink": ("S", "#56b4e9"),
    "hidden_sink": ("H", "#56b4e9"),
    "streaming": ("W", "#f0e442"),
    "always_local": ("A", "#f0e442"),
    "local": ("L", "#f0e442"),
    "always_long": ("E", "#9b6bd3"),
    "switching": ("V", "#9b6bd3"),
    "far": ("F", "#9b6bd3"),
    "global": ("G", "#9b6bd3"),
    "duo_full": ("U", "#9b6bd3"),
}
_OTHERS = ("#6b7480", "#882255", "#999933")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class Pair:
    """One colour on both surfaces."""

    light: str
    dark: str

    @classmethod
    def of(cls, colour: str) -> "Pair":
        """A colour of marks: itself where it is light, light enough to be seen where it is dark."""
        return cls(seen_on(colour, SURFACE["light"]), seen_on(colour, SURFACE["dark"]))

    @classmethod
    def named(cls, colours: Mapping[Theme, str]) -> "Pair":
        """One of the colours above: SURFACE, EMPTY, INK, MUTED or LINE."""
        return cls(colours["light"], colours["dark"])

    def on(self, theme: Theme) -> str:
        return self.light if theme == "light" else self.dark


@dataclass(frozen=True)
class Style:
    """How a role is drawn."""

    letter: str
    colour: str

    def on(self, theme: Theme) -> str:
        """The role's colour, light enough to be seen where the surface is dark."""
        return self.colour if theme == "light" else seen_on(self.colour, SURFACE["dark"])

    def fill(self, level: int, theme: Theme = "light") -> str:
        """The colour of a cell, level 0 being the one for heads that are not sure."""
        return mix(self.on(theme), SURFACE[theme], LEVELS[level])

    def text(self, level: int, theme: Theme = "light") -> str:
        """The letter's colour on that cell: a shade of the role's own if that can be read."""
        return readable_on(self.fill(level, theme), self.colour)


def styles(roles: Iterable[str]) -> dict[str, Style]:
    """A style for each role, with letters that differ.

    A role that headscope does not know gets its style by its name, whatever the order in which
    roles are listed.
    """
    roles = list(dict.fromkeys(roles))
    found = {role: Style(*_ROLES[role]) for role in roles if role in _ROLES}
    letters = {letter for letter, _ in _ROLES.values()}
    for role in sorted(set(roles) - set(found)):
        choices = [c for c in role.upper() + _LETTERS if c in _LETTERS and c not in letters]
        letter = choices[0] if choices else "?"
        letters.add(letter)
        found[role] = Style(letter, _OTHERS[crc32(role.encode()) % len(_OTHERS)])
    return {role: found[role] for role in roles}


def mix(colour: str, surface: str, amount: float) -> str:
    """A colour laid over a surface, `amount` of it opaque."""
    pairs = zip(_channels(colour), _channels(surface), strict=True)
    return "#" + "".join(f"{round(a * amount + b * (1 - amount)):02x}" for a, b in pairs)


def seen_on(colour: str, surface: str) -> str:
    """A colour moved away from a surface as little as its marks need to be seen there."""
    far = max(("#000000", "#ffffff"), key=lambda end: contrast(end, surface))
    shades = (mix(far, colour, step / 20) for step in range(21))
    return next(shade for shade in shades if contrast(shade, surface) >= 3)


def readable_on(surface: str, colour: str) -> str:
    """The least dark or least light shade of a colour that can be read on a surface with ease."""
    far = max(("#000000", "#ffffff"), key=lambda end: contrast(end, surface))
    shades = (mix(colour, far, own) for own in (0.5, 0.35, 0.2))
    return next((shade for shade in shades if contrast(shade, surface) >= 6), far)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2, 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _luminance(colour: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
