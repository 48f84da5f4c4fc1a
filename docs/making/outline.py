"""A pattern as a small picture: which keys each row sees."""

from headscope.patterns.base import Pattern
from headscope.viz.markup import el
from headscope.viz.palette import EMPTY, INK, LINE, MUTED, SURFACE

_SIDE, _EDGE = 320, 26


def outline(pattern: Pattern, n: int = 160) -> str:
    """The lower triangle of n tokens, seen pairs filled; an SVG of its own."""
    step = _SIDE / n
    runs = [
        f"M{start * step:g} {row * step:g}h{(wide := (stop - start) * step):g}v{step:g}h{-wide:g}z"
        for row in range(n)
        for start, stop in pattern.key_ranges(row, row)
    ]
    size = _SIDE + _EDGE + 8
    name = f"Keys that each of {n} queries sees under {pattern}"
    return el(
        "svg",
        el("title", name),
        el("rect", width=size, height=size, rx=6, fill=SURFACE["light"]),
        el(
            "g",
            el("path", d=f"M0 0L{_SIDE} {_SIDE}L0 {_SIDE}Z", fill=EMPTY["light"]),
            el("path", d="".join(runs), fill=INK["light"]),
            el("rect", width=_SIDE, height=_SIDE, fill="none", stroke=LINE["light"]),
            transform=f"translate({_EDGE} {_EDGE})",
        ),
        el("text", "key", x=_EDGE, y=_EDGE - 9, font_size=12, fill=MUTED["light"]),
        el(
            "text",
            "query",
            x=-_EDGE - 34,
            y=_EDGE - 10,
            font_size=12,
            fill=MUTED["light"],
            transform="rotate(-90)",
        ),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {size} {size}",
        width=size,
        height=size,
        role="img",
        aria_label=name,
        font_family="system-ui, sans-serif",
    )
