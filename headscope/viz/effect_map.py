"""What single heads do: all of them as cells, and those that do most with their intervals."""

import numpy as np
import pandas as pd

from headscope.viz import themes
from headscope.viz.marks import Cells, Look, Mark, Outline
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import diverging
from headscope.viz.rows import Row, rows_panel

_SHOWN = 10
LEVEL = 0.05  # rate of false discoveries
_BORDER = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])


def effect_panels(
    table: pd.DataFrame,
    title: str,
    told: tuple[str, ...],
    *,
    largest: bool = True,
    layers: list[int] | None = None,
    n_heads: int | None = None,
    digits: int = 3,
    missing: str = "not ablated",
) -> tuple[Panel, Panel]:
    """Two panels of one table.

    Args:
        table: name, layer, head, effect with low and high, q and whatever else is `told`.
        title: what an effect is, with its unit.
        told: further columns for tooltips.
        largest: whether the largest effects are the ones to list, or the smallest.
        layers, n_heads: of the model, where there are heads that the table leaves out.
        digits: decimals of an effect.
        missing: said of heads that the table leaves out.
    """
    known = sorted(set(table["layer"])) if layers is None else layers
    heads = int(np.max(table["head"])) + 1 if n_heads is None else n_heads
    place = {layer: i for i, layer in enumerate(known)}
    rows, columns = (
        table["head"].to_numpy(int),
        np.array([place[layer] for layer in table["layer"]]),
    )
    values = np.full((heads, len(known)), np.nan)
    values[rows, columns] = table["effect"]
    columns_told = ("effect", "low", "high", *told)
    numbers = np.full((heads, len(known), len(columns_told)), np.nan)
    numbers[rows, columns] = table[list(columns_told)]
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    names = np.array(
        [
            [
                f"L{layer}H{head}" + ("" if np.isfinite(values[head, i]) else f": {missing}")
                for i, layer in enumerate(known)
            ]
            for head in range(heads)
        ],
        object,
    )
    fields = (title, *columns_told[1:])
    cells = Cells(values, diverging(most, title), said=names, fields=fields, numbers=numbers,
                  digits=digits)  # fmt: skip
    pitch = max(9.0, min(24.0, 620.0 / len(known)))
    cells_panel = Panel(
        Axis("layer", names=tuple(map(str, known))),
        Axis("head", names=tuple(map(str, range(heads))), down=True),
        (cells, *_rings(table, columns, rows)),
        width=pitch * len(known),
        height=pitch * heads,
    )
    ranked = table.sort_values("effect", ascending=not largest, kind="stable")
    leading = ranked.head(_SHOWN).to_dict("records")
    listed = [
        Row(row["name"], (row["effect"], row["low"], row["high"]),
            "tested" if row["q"] <= LEVEL else "")
        for row in leading
    ]  # fmt: skip
    which = f"The {len(listed)} {'highest' if largest else 'lowest'}"
    return cells_panel, rows_panel(listed, which, title, digits=digits, width=240.0)


def ringed(sure: int) -> str:
    """What the rings of so many heads say."""
    heads = "no head does" if not sure else f"{sure} head{' does' if sure == 1 else 's do'}"
    return f"Ringed: told from no effect at a false discovery rate of {LEVEL:g}, as {heads}."


def _rings(table: pd.DataFrame, columns: np.ndarray, rows: np.ndarray) -> list[Mark]:
    """Around heads whose effect is told from none."""
    sure = np.flatnonzero(table["q"].to_numpy() <= LEVEL)
    if not len(sure):
        return []
    gap = np.full(len(sure), np.nan)
    x = np.column_stack([columns[sure, None] + _BORDER[:, 0], gap]).ravel()
    y = np.column_stack([rows[sure, None] + _BORDER[:, 1], gap]).ravel()
    return [Outline(x, y, Look(themes.INK, "none", width=1.6))]
