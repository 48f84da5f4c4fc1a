"""Speed-up of decoding against the tokens before it, a panel for each mix."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.viz.chart import Chart
from headscope.viz.marks import Line, Look
from headscope.viz.panel import Panel
from headscope.viz.speeds import measured_on, speed_panel

if TYPE_CHECKING:
    from headscope.bench.result import Bench


def decode_speed(found: "Bench") -> Chart:
    """One token after many: speed-ups over the best dense kernel, and what bytes would allow.

    Args:
        found: what `headscope bench` measured.

    Raises:
        HeadscopeError: it holds no row of decode.
    """
    from headscope.bench.tables import decode_table

    table = decode_table(found)
    if table.empty:
        raise HeadscopeError("This bench has no row of decode; run one with decode lengths.")
    panels = tuple(_panel(str(mix), rows) for mix, rows in table.groupby("mix", sort=False))
    return Chart(
        "Attention of one token: speed-up over the best dense kernel, by tokens before it",
        panels,
        columns=min(3, len(panels)),
        note=f"{measured_on(found)}. Dashed, of the same colour: what would be reached if time "
        "went with the bytes that are read.",
    )


def _panel(mix: str, rows: pd.DataFrame) -> Panel:
    lines = []
    known = rows.to_dict("records")
    for i, batch in enumerate(sorted({row["batch"] for row in known})):
        of = [row for row in known if row["batch"] == batch]
        x = np.array(sorted({row["n"] for row in of}), np.float64)
        reached, most = (
            np.array([np.mean([row[name] for row in of if row["n"] == n]) for n in x])
            for name in ("speed-up", "limit")
        )
        look = Look.series(i)
        lines.append(Line(x, most, Look(look.colour, "none", "dashed", width=1.2)))
        lines.append(Line(x, reached, look, f"batch {batch}", points=True))
    return speed_panel(mix, rows["n"], lines)
