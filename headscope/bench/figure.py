"""Speed-up against length, a panel for each mix: headscope, each baseline, and the tile limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log2
from typing import Any

from headscope.bench.result import Bench
from headscope.bench.tables import prefill_table
from headscope.viz.charts import Scale, horizontal, plain
from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LINE, MUTED, SURFACE

_WIDE, _HIGH, _GAP, _LEFT, _HEAD = 190.0, 150.0, 40.0, 34.0, 26.0  # px of a panel and around it
_ACROSS = 3  # panels in a row
_PITCH = 15.0
_NOT = {"mix", "n", "layers", "dense", "ms", "speed-up", "limit", "reached"}
# Colours of Okabe & Ito 2008 as the palette has them, and a mark each, so that no line depends on
# its colour alone.
_LOOKS = (("#d55e00", "square"), ("#009e73", "triangle"), ("#3b3f9e", "diamond"),
          ("#9b6bd3", "cross"), ("#e69f00", "bar"))  # fmt: skip
OURS, LIMIT = "headscope", "tile limit"


@dataclass(frozen=True)
class _Look:
    colour: str
    mark: str
    dashes: str | None = None


def bench_svg(found: Bench) -> str:
    """The chart as a file of its own, on white."""
    rows = prefill_table(found).to_dict("records")
    mixes = list(dict.fromkeys(row["mix"] for row in rows))
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in _NOT]
    looks = {LIMIT: _Look(MUTED["light"], "none", "4 3"), OURS: _Look(INK["light"], "circle")}
    looks |= {
        name: _Look(*_LOOKS[i % len(_LOOKS)], None if i < len(_LOOKS) else "2 2")
        for i, name in enumerate(names)
    }
    said = "Attention of a whole text: speed-up over the best dense kernel, by length in tokens"
    where = f"{found.device}, {found.dtype}, PyTorch {found.versions.get('torch', '?')}"
    columns = max(1, min(_ACROSS, len(mixes)))
    top = 44 + _PITCH * ceil(len(looks) / 3) + 8
    panels = []
    for i, mix in enumerate(mixes):
        x = _LEFT + (i % columns) * (_WIDE + _GAP)
        y = top + _HEAD + (i // columns) * (_HIGH + _HEAD + 34)
        mine = [row for row in rows if row["mix"] == mix]
        panels.append(_panel(mix, mine, names, looks, x, y))
    width = max(_LEFT + columns * (_WIDE + _GAP), 30 + 3 * 170.0)
    height = top + ceil(len(mixes) / columns) * (_HIGH + _HEAD + 34) + 12
    return el(
        "svg",
        el("title", f"{said}; {where}"),
        el("rect", x=0, y=0, width="100%", height="100%", fill=SURFACE["light"]),
        el("text", said, x=10, y=17, font_size=11.5, fill=INK["light"]),
        el("text", where, x=10, y=33, font_size=10.5, fill=MUTED["light"]),
        *(
            _entry(name, look, 12 + (i % 3) * 170.0, 52 + _PITCH * (i // 3))
            for i, (name, look) in enumerate(looks.items())
        ),
        *panels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        font_family=FONT,
        role="img",
        aria_label=said,
    )


def _panel(
    mix: str,
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    looks: dict[str, _Look],
    x: float,
    y: float,
) -> Markup:
    lengths = [row["n"] for row in rows]
    series = {LIMIT: "limit", **{name: name for name in names}, OURS: "speed-up"}
    lines = {
        name: [(row["n"], row[key]) for row in rows if _known(row.get(key))]
        for name, key in series.items()
    }
    highest = max((value for line in lines.values() for _, value in line), default=1.0)
    low, high = log2(min(lengths)), log2(max(lengths))
    pad = 0.08 * (high - low) or 1.0
    across = Scale(low - pad, high + pad, x, _WIDE)
    up = Scale(0.0, 1.08 * max(highest, 1.0), y + _HIGH, -_HIGH)
    digits = up.digits()
    ground = [
        el("g", *(horizontal(x, x + _WIDE, up(t), "gridline") for t in up.ticks()),
           stroke=LINE["light"]),
        el("g", horizontal(x, x + _WIDE, up(1.0), "axis"), stroke=MUTED["light"]),
    ]  # fmt: skip
    ticks = [
        el("text", plain(t, digits), x=x - 6, y=up(t) + 4, text_anchor="end") for t in up.ticks()
    ] + [
        el("text", _tokens(n), x=across(log2(n)), y=y + _HIGH + 15, text_anchor="middle")
        for n in dict.fromkeys(lengths)
    ]
    return el(
        "g",
        el("text", mix, x=x, y=y - 8, font_size=11.5, font_weight="bold", fill=INK["light"]),
        *ground,
        *(_line(name, line, looks[name], across, up) for name, line in lines.items() if line),
        el("g", *ticks, font_size=10.5, fill=MUTED["light"]),
    )


def _line(
    name: str, points: Sequence[tuple[int, float]], look: _Look, across: Scale, up: Scale
) -> Markup:
    at = [(across(log2(n)), up(value)) for n, value in points]
    told = f"{name}: " + ", ".join(f"{_tokens(n)} {value:.2f}" for n, value in points)
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    return el(
        "g",
        el("title", told),
        el("path", d=path, fill="none", stroke_width=1.6, stroke_dasharray=look.dashes),
        *(_mark(look.mark, x, y) for x, y in at),
        stroke=look.colour,
        fill=look.colour,
        class_="series",
        data_name=name,
    )


def _mark(kind: str, x: float, y: float) -> Markup:
    if kind == "circle":
        return el("circle", cx=x, cy=y, r=3.6)
    if kind == "square":
        return el("rect", x=x - 3, y=y - 3, width=6, height=6)
    shapes = {
        "triangle": f"M{x:.1f} {y - 4:.1f}l4 7h-8z",
        "diamond": f"M{x:.1f} {y - 4.5:.1f}l4 4.5l-4 4.5l-4 -4.5z",
        "cross": f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6",
        "bar": f"M{x - 4:.1f} {y - 1.5:.1f}h8v3h-8z",
    }
    return el("path", d=shapes[kind]) if kind in shapes else Markup("")


def _entry(name: str, look: _Look, x: float, y: float) -> Markup:
    line = el("path", d=f"M{x:.1f} {y:.1f}h22", stroke_width=1.6, stroke_dasharray=look.dashes)
    drawn = el("g", line, _mark(look.mark, x + 11, y), stroke=look.colour, fill=look.colour)
    return el("g", drawn, el("text", name, x=x + 28, y=y + 4, font_size=11, fill=INK["light"]))


def _tokens(n: int) -> str:
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


def _known(value: Any) -> bool:
    return isinstance(value, float) and isfinite(value)
