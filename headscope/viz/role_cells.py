"""A head map as the cells of a chart: role as hue, confidence as depth, and a letter."""

from collections.abc import Collection

import numpy as np

from headscope.heads import Head
from headscope.viz import themes
from headscope.viz.chart import Key
from headscope.viz.grid import Grid
from headscope.viz.marks import Cells, Look, Outline
from headscope.viz.palette import LEVELS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import stepped
from headscope.viz.view import Cell, View, words

_LEVELS = len(LEVELS)


def role_panel(view: View, title: str = "", ringed: Collection[Head] = ()) -> Panel:
    """All heads of a map, layers from left to right, lines between KV groups."""
    head_map = view.head_map
    layers, heads = tuple(head_map.layers), head_map.n_heads
    pitch = Grid(layers, heads, head_map.n_kv_heads, 0.0).pitch
    marks = [role_cells(view), *_separators(view), *_rings(view, ringed)]
    return Panel(
        Axis("layer", names=tuple(map(str, layers))),
        Axis("head", names=tuple(map(str, range(heads))), down=True),
        tuple(marks),
        title,
        width=max(pitch * len(layers), 24.0),
        height=max(pitch * heads, 24.0),
    )


def role_cells(view: View) -> Cells:
    """[head, layer]: the index of a colour for every head, and all its scores for a tooltip."""
    roles = list(view.rules)
    colours = [themes.EMPTY]
    for role in roles:
        style = view.styles[role]
        colours += [Pair(style.fill(i, "light"), style.fill(i, "dark")) for i in range(_LEVELS)]
    index = [0 if not c.role else 1 + roles.index(c.role) * _LEVELS + c.level for c in view.cells]
    letters = [view.styles[c.role].letter if c.role else "" for c in view.cells]
    fields = tuple(view.head_map.scores)
    numbers = np.array([[c.scores[name][0] for name in fields] for c in view.cells], np.float32)
    return Cells(
        values=_placed(view, np.array(index, np.uint8 if len(colours) < 256 else np.int16)),
        ramp=stepped(colours),
        letters=_placed(view, np.array(letters, object)),
        said=_placed(view, np.array([said(view, cell) for cell in view.cells], object)),
        fields=tuple(map(words, fields)),
        numbers=_placed(view, numbers),
    )


def said(view: View, cell: Cell) -> str:
    """ "L3H2, KV head 0", and its roles in a second line."""
    head_map = view.head_map
    shared = f", KV head {cell.kv_head}" if head_map.n_kv_heads < head_map.n_heads else ""
    return f"{cell.name}{shared}\n{', '.join(map(words, cell.roles)) or 'no role'}"


def role_key(*views: View) -> tuple[Key, ...]:
    """The primary roles that some head has, with how many; of several maps their numbers."""
    rules = list(dict.fromkeys(role for view in views for role in view.rules))
    found = []
    for role in rules:
        counts = [view.count(role) for view in views]
        if any(counts):
            style = next(view.styles[role] for view in views if role in view.styles)
            colour = Pair(style.on("light"), style.on("dark"))
            found.append(Key(f"{words(role)} {_told(counts)}", colour, style.letter))
    none = [view.count("") for view in views]
    return (*found, Key(f"no role {_told(none)}", themes.EMPTY))


def _told(counts: list[int]) -> str:
    return " / ".join(map(str, counts))


def _placed(view: View, values: np.ndarray) -> np.ndarray:
    """[head, layer, ...] from one value for each head, layer by layer."""
    head_map = view.head_map
    shape = (len(head_map.layers), head_map.n_heads, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(0, 1))


def _separators(view: View) -> list[Outline]:
    head_map = view.head_map
    if head_map.n_kv_heads in (1, head_map.n_heads):
        return []
    group = head_map.n_heads // head_map.n_kv_heads
    edges = np.arange(1, head_map.n_kv_heads) * group - 0.5
    right = len(head_map.layers) - 0.5
    x = np.tile([-0.5, right, np.nan], len(edges))
    look = Look(themes.MUTED, "none", width=1.2)
    return [Outline(x, np.repeat(edges, 3), look)]


def _rings(view: View, ringed: Collection[Head]) -> list[Outline]:
    rows = {layer: row for row, layer in enumerate(view.head_map.layers)}
    chosen = [(rows[layer], head) for layer, head in ringed if layer in rows]
    if not chosen:
        return []
    across, down = np.array(chosen, np.float64).T
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
    gap = np.full(len(chosen), np.nan)
    x = np.column_stack([across[:, None] + corners[:, 0], gap]).ravel()
    y = np.column_stack([down[:, None] + corners[:, 1], gap]).ravel()
    return [Outline(x, y, Look(themes.INK, "none", width=1.8), "marked heads")]
