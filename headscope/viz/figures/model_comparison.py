"""Two head maps side by side, and where they differ."""

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.viz import themes
from headscope.viz.chart import Chart, Key
from headscope.viz.marks import Cells
from headscope.viz.palette import AWAY, TOWARDS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import diverging, stepped
from headscope.viz.role_cells import role_key, role_panel
from headscope.viz.view import View, words

_BINS = 10  # of relative depth, or as many as the shallower model has layers
_SAME = Key("same role in both", themes.LINE)
_ONE = Key("a role in the first alone", Pair.of(AWAY), "1")
_TWO = Key("a role in the second alone", Pair.of(TOWARDS), "2")
_OTHER = Key("another role", Pair.of("#cc79a7"), "≠")


def model_comparison(first: HeadMap, second: HeadMap) -> Chart:
    """The roles of two maps: head by head where their shapes agree, else by relative depth.

    Args:
        first: one map.
        second: another, of the same model or of any other.

    Raises:
        HeadscopeError: no rule can be applied to both.
    """
    views = [View.of(each, intervals=False) for each in (first, second)]
    shared = [role for role in views[0].rules if role in views[1].rules]
    if not shared:
        raise HeadscopeError(
            "The two maps share no role that could be compared; scan both with the same probes."
        )
    names = [each.info.model.name for each in (first, second)]
    if names[0] == names[1]:
        names = [f"{names[0]}, first run", f"{names[1]}, second run"]
    maps = [role_panel(view, name) for view, name in zip(views, names, strict=True)]
    same = len(first.layers) == len(second.layers) and first.n_heads == second.n_heads
    differing, key, note = _by_head(views, shared) if same else _by_depth(views, shared)
    return Chart(
        f"Roles of the heads of {names[0]} and {names[1]}",
        (*maps, differing),
        columns=3 if sum(panel.width for panel in maps) < 700 else 1,
        key=(*role_key(*views), *key),
        note=note,
    )


def _by_head(views: list[View], shared: list[str]) -> tuple[Panel, tuple[Key, ...], str]:
    """Whether each head has the same primary role in both."""
    panel = role_panel(views[0], "Where they differ")
    cells = panel.marks[0]
    assert isinstance(cells, Cells)
    roles = [[c.role if c.role in shared else "" for c in view.cells] for view in views]
    kinds = [_kind(*pair) for pair in zip(*roles, strict=True)]
    keys = (_SAME, _ONE, _TWO, _OTHER)
    shape = (len(views[0].head_map.layers), views[0].head_map.n_heads)
    values = np.array(kinds, np.uint8).reshape(shape).T
    said = [f"{cell.name}\nfirst: {words(a) or 'no role'}\nsecond: {words(b) or 'no role'}"
            for cell, a, b in zip(views[0].cells, *roles, strict=True)]  # fmt: skip
    letters = np.array(["", *(key.letter for key in keys)], object)[values]
    marks = Cells(
        values,
        stepped([themes.EMPTY, *(key.colour for key in keys)]),
        letters,
        np.array(said, object).reshape(shape).T,
    )
    with_role = sum(kind > 0 for kind in kinds)
    agreeing = sum(kind == 1 for kind in kinds)
    note = (
        f"Of {with_role} heads that have a role in either map, {agreeing} have the same primary "
        "role in both."
    )
    found = Panel(panel.x, panel.y, (marks, *panel.marks[1:]), panel.title, panel.width,
                  panel.height)  # fmt: skip
    return found, tuple(key for i, key in enumerate(keys, 1) if i in kinds), note


def _kind(first: str, second: str) -> int:
    if first == second:
        return 1 if first else 0
    if not second:
        return 2
    return 4 if first else 3


def _by_depth(views: list[View], shared: list[str]) -> tuple[Panel, tuple[Key, ...], str]:
    """For every role and tenth of the depth, the share of heads that the second has more."""
    n = min(_BINS, *(len(view.head_map.layers) for view in views))
    shares = [np.stack([_share(view, role, n) for role in shared]) for view in views]
    more = shares[1] - shares[0]
    kept = [i for i in range(len(shared)) if np.any([share[i] > 0 for share in shares])] or [0]
    edges = [f"{i / n:.0%}" for i in range(n)]
    most = max(float(np.abs(more).max()), 0.01)
    said = [[f"{words(shared[i])}, depth {edges[j]} to {(j + 1) / n:.0%}" for j in range(n)]
            for i in kept]  # fmt: skip
    numbers = np.stack([shares[0][kept], shares[1][kept], more[kept]], -1)
    cells = Cells(
        more[kept],
        diverging(most, "share of heads, second minus first"),
        said=np.array(said, object),
        fields=("share in the first", "share in the second", "difference"),
        numbers=numbers,
    )
    panel = Panel(
        Axis("relative depth", names=tuple(edges)),
        Axis(names=tuple(words(shared[i]) for i in kept), down=True),
        (cells,),
        "Where they differ, by relative depth",
        width=32.0 * n,
        height=22.0 * len(kept),
    )
    return panel, (), (
        "The maps differ in shape, so that no head of one stands for a head of the other: layers "
        "are matched by relative depth, and shares of heads with a primary role are compared."
    )  # fmt: skip


def _share(view: View, role: str, n: int) -> np.ndarray:
    """[bin]: the share of heads whose primary role it is, by relative depth of their layer.

    A layer that reaches over the edge of a bin counts in each with the part that lies there.
    """
    head_map = view.head_map
    layers = len(head_map.layers)
    has = np.array([cell.role == role for cell in view.cells], float)
    by_layer = has.reshape(layers, head_map.n_heads).mean(1)
    edges = np.linspace(0, layers, n + 1)
    sums = np.interp(edges, np.arange(layers + 1), np.concatenate([[0.0], by_layer.cumsum()]))
    return np.diff(sums) / np.diff(edges)
