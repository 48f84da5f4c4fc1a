"""Speed-up against length, a panel for each mix: headscope, each baseline, and the tile limit."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.marks import Line, Look
from headscope.viz.panel import Panel
from headscope.viz.speeds import measured_on, speed_panel

if TYPE_CHECKING:
    from headscope.bench.result import Bench

_NOT = {"mix", "n", "layers", "dense", "ms", "speed-up", "limit", "reached"}
OURS, LIMIT = "headscope", "tile limit"


def kernel_speed(found: "Bench") -> Chart:
    """Speed-ups of whole texts over the best dense kernel.

    Args:
        found: what `headscope bench` measured.

    Raises:
        HeadscopeError: it holds no row of prefill.
    """
    from headscope.bench.tables import prefill_table

    table = prefill_table(found)
    if table.empty:
        raise HeadscopeError("This bench has no row of prefill; run one with lengths to measure.")
    names = [name for name in table.columns if name not in _NOT]
    looks = {LIMIT: Look(themes.MUTED, "none", "dashed"), **_series(names), OURS: Look(size=8.0)}
    columns = {LIMIT: "limit", **{name: name for name in names}, OURS: "speed-up"}
    panels = tuple(
        _panel(str(mix), rows.sort_values("n"), columns, looks)
        for mix, rows in table.groupby("mix", sort=False)
    )
    return Chart(
        "Attention of a whole text: speed-up over the best dense kernel, by length in tokens",
        panels,
        columns=min(3, len(panels)),
        note=f"{measured_on(found)}. At 1 a method takes as long as the best dense kernel; the "
        "tile limit is what would be reached if time went by the tiles that are computed.",
    )


def _series(names: list[str]) -> dict[str, Look]:
    return {name: Look.series(i) for i, name in enumerate(names)}


def _panel(mix: str, rows: pd.DataFrame, columns: dict[str, str], looks: dict[str, Look]) -> Panel:
    lengths = rows["n"].to_numpy(np.float64)
    lines = []
    for name, column in columns.items():
        if column not in rows:
            continue
        known = [v if isinstance(v, float) else np.nan for v in rows[column]]
        values = np.array(known, np.float64)
        if np.isfinite(values).any():
            lines.append(Line(lengths, values, looks[name], name, points=name != LIMIT))
    return speed_panel(mix, lengths.tolist(), lines)
