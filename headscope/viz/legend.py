"""What the colours, letters and outlines of a head map mean, with counts."""

from collections.abc import Mapping

from headscope.viz.markup import Markup, el, join
from headscope.viz.paint import Paint
from headscope.viz.palette import LEVELS
from headscope.viz.view import View, words

_SWATCH = 15.0
_LINE = 22.0
_LETTER = 6.7  # px of a letter at font size 12, in the widest of the fonts that it may be set in


def legend(
    view: View, paint: Paint, left: float, top: float, width: float, ringed: bool
) -> tuple[Markup, float]:
    """The legend, in as many lines as it takes, and where it ends.

    Args:
        left, top, width: where it may go, in px.
        ringed: whether some heads have a ring.
    """
    roles, notes = _roles(view, paint), _notes(view, paint, ringed)
    drawn, bottom = _flow(roles, left, top, width)
    more, bottom = _flow(notes, left, bottom, width)
    return el("g", drawn, more, font_size=12, **paint("ink")), bottom + 8


def _swatch(view: View, paint: Paint, role: str) -> Markup:
    """A cell of full confidence as it is drawn in the map."""
    letter = view.styles[role].letter
    name = f"{letter}{len(LEVELS) - 1}"
    at = {"x": _SWATCH / 2, "y": 11.5, "text_anchor": "middle"}
    text = el("text", letter, **at, font_size=9.5, font_weight=600, **paint(f"{name}t"))
    return join(_square(paint(name)), text)


def _square(look: Mapping[str, str], x: float = 0.0, inset: float = 0.0) -> Markup:
    size = _SWATCH - 2 * inset
    return el("rect", x=x + inset, y=inset, width=size, height=size, rx=3, **look)


def _roles(view: View, paint: Paint) -> list[tuple[Markup, float]]:
    items = [
        _item(_swatch(view, paint, role), _SWATCH, words(role), str(view.count(role)))
        for role in view.rules
        if view.count(role)
    ]
    empty = _square(paint("empty"))
    return [*items, _item(empty, _SWATCH, "no role", str(view.count("")))]


def _notes(view: View, paint: Paint, ringed: bool) -> list[tuple[Markup, float]]:
    if not view.rules:
        return []
    first = next((role for role in view.rules if view.count(role)), next(iter(view.rules)))
    style = view.styles[first]
    step = _SWATCH - 2
    ramp = join(
        *(
            _square(paint(f"{style.letter}{level}"), (level - 1) * step, 1.0)
            for level in range(1, len(LEVELS))
        )
    )
    items = [_item(ramp, step * (len(LEVELS) - 1) + 2, "score, from the cut on")]
    dashes = {"stroke": style.on("dark"), "stroke_dasharray": "2 2"}
    unsure = _square(dashes | paint(f"{style.letter}0"), inset=1.0)
    items.append(_item(unsure, _SWATCH, "other prompts might decide otherwise"))
    if ringed:
        outline = {"fill": "none", "stroke_width": "1.6", **paint("ink", "stroke")}
        ring = _square(outline, inset=1.0)
        items.append(_item(ring, _SWATCH, "in a causal test"))
    return items


def _item(mark: Markup, size: float, label: str, count: str = "") -> tuple[Markup, float]:
    """A mark with its label, and the width to keep free for it."""
    number = el("tspan", count, font_weight=600, dx=5) if count else ""
    text = el("text", label, number, x=size + 6, y=12)
    letters = len(label) + (len(count) + 1 if count else 0)
    return join(mark, text), size + 6 + letters * _LETTER + 14


def _flow(
    items: list[tuple[Markup, float]], left: float, top: float, width: float
) -> tuple[Markup, float]:
    x, y, placed = left, top, []
    for item, size in items:
        if x > left and x + size > width:
            x, y = left, y + _LINE
        placed.append(el("g", item, transform=f"translate({x:g} {y:g})"))
        x += size
    return join(*placed), y + _LINE if items else top
