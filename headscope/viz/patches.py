"""A head map by patching as one static SVG: how far each head alone carries the answer over."""

from headscope.errors import HeadscopeError
from headscope.patch_map import PatchMap
from headscope.viz.grid import Grid
from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import AWAY, EMPTY, INK, MUTED, SURFACE, TOWARDS, mix

_BOX = (
    f"background:{SURFACE['light']};color:{INK['light']};padding:12px 14px;border-radius:8px;"
    f"max-width:1040px;font:13px/1.45 {FONT}"
)


def patch_map_repr(found: PatchMap) -> str:
    """The claim and the map, for notebooks; why there is none where nothing can be claimed."""
    try:
        claim = found.claim()
    except HeadscopeError as error:
        return el("div", str(error), style=_BOX)
    return el("div", el("div", claim, style="margin-bottom:8px"), patch_map_svg(found), style=_BOX)


def patch_map_svg(found: PatchMap) -> Markup:
    """Every head as a cell: the fuller its colour, the larger its effect, relative to the largest.

    Orange carries the answer towards that of the other run, blue away from it; grey was not
    patched. Numbers are in the tooltips.

    Raises:
        HeadscopeError: the model does not tell clean from corrupt, so that there are no effects.
    """
    found.check_scale()
    rows = found.table().to_dict("records")
    most = max((abs(row["effect"]) for row in rows), default=0) or 1.0
    grid = Grid(tuple(found.layers), found.n_heads, found.n_kv_heads, 26.0)
    cells = {(row["layer"], row["head"]): row for row in rows}
    drawn: list[Markup] = []
    for column, layer in enumerate(found.layers):
        for head in range(found.n_heads):
            row = cells.get((layer, head))
            fill, said = EMPTY["light"], f"L{layer}H{head}: not patched"
            if row is not None:
                towards = TOWARDS if row["effect"] > 0 else AWAY
                fill = mix(towards, EMPTY["light"], abs(row["effect"]) / most)
                said = (
                    f"{row['name']}: {row['effect']:.3f} [{row['low']:.3f}, {row['high']:.3f}], "
                    f"{row['change']:+.2f} nats, q = {row['q']:.2g}"
                )
            place = {"x": grid.x(column), "y": grid.y(head)}
            size = {"width": grid.cell, "height": grid.cell, "rx": grid.corner}
            drawn.append(el("g", el("title", said), el("rect", **place, **size, fill=fill)))
    below = grid.top + grid.height + 14
    ticks = [
        *(el("text", str(n), x=x, y=below, text_anchor="middle") for x, n in grid.layer_ticks()),
        *(
            el("text", str(n), x=grid.left - 7, y=y + 4, text_anchor="end")
            for y, n in grid.head_ticks()
        ),
    ]
    width, height = grid.left + grid.width + 14, below + 12
    name = f"{found.direction.capitalize()}, head by head: {found.model} on {found.task}"
    return el(
        "svg",
        el("title", name),
        el("rect", width=width, height=height, rx=6, fill=SURFACE["light"]),
        el("g", *drawn),
        el("g", *ticks, font_size=10.5, fill=MUTED["light"]),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=name,
        font_family=FONT,
        style="max-width:100%;height:auto",
    )
