"""The patterns of all heads of a layer, small and side by side."""

from math import ceil, sqrt

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.heads import Head, label
from headscope.viz.chart import Chart
from headscope.viz.head_patterns import Patterns
from headscope.viz.palette import styles
from headscope.viz.panel import Axis, Panel
from headscope.viz.pattern_cells import diagonal, pattern_cells
from headscope.viz.pooling import max_pool, square
from headscope.viz.view import words

_CELLS, _SIDE = 48, 104.0  # on a side of each pattern, and px


def gallery(found: Patterns, layer: int | None = None, head_map: HeadMap | None = None) -> Chart:
    """A small pattern of every head.

    Args:
        found: patterns, as `headscope.viz.patterns` gives them.
        layer: the layer to show; all heads that `found` has if left out.
        head_map: roles to write beside the heads, as letters.

    Raises:
        HeadscopeError: there is no pattern of that layer.
    """
    heads = [head for head in found.weights if layer is None or head[0] == layer]
    if not heads:
        raise HeadscopeError(
            f"These patterns hold no head of layer {layer}; compute them with its heads."
        )
    roles = _roles(head_map)
    size = square(found.squares, _CELLS)
    panels = tuple(_panel(found, head, roles.get(head, ()), size) for head in heads)
    where = "" if layer is None else f" in layer {layer}"
    seen = {role for head in heads for role in roles.get(head, ())}
    letters = ", ".join(
        f"{style.letter} {words(role)}" for role, style in styles(sorted(seen)).items()
    )
    pooled = found.size * size
    note = "" if pooled == 1 else f"Cells are the highest weight of {pooled} × {pooled} tokens. "
    note += f"Queries go down, keys across, over {len(found.tokens):,} tokens."
    if letters:
        note += f" Roles: {letters}."
    return Chart(
        f"Attention of {len(heads)} head{'' if len(heads) == 1 else 's'}{where} of {found.model}",
        panels,
        columns=min(8, max(1, ceil(sqrt(len(heads) * 1.6)))),
        note=note,
    )


def _panel(found: Patterns, head: Head, roles: tuple[str, ...], size: int) -> Panel:
    cells = pattern_cells(max_pool(found.weights[head], size), found.size * size, exact=False)
    letters = "".join(style.letter for style in styles(roles).values())
    bare = Axis(bare=True)
    return Panel(
        bare,
        Axis(bare=True, down=True),
        (cells, diagonal(len(cells.values))),
        f"{label(head)} {letters}".strip(),
        width=_SIDE,
        height=_SIDE,
    )


def _roles(head_map: HeadMap | None) -> dict[Head, tuple[str, ...]]:
    if head_map is None:
        return {}
    table = head_map.roles()
    return {
        (int(row["layer"]), int(row["head"])): tuple(filter(None, row["roles"].split(",")))
        for row in table.to_dict("records")
    }
