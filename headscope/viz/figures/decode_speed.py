"""Speed-up of decoding against the tokens before it, a panel for each mix."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.marks import Line, Look, Mark, Rule
from headscope.viz.panel import Axis, Panel, tokens

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
    where = f"{found.device}, {found.dtype}, PyTorch {found.versions.get('torch', '?')}"
    return Chart(
        "Attention of one token: speed-up over the best dense kernel, by tokens before it",
        panels,
        columns=min(3, len(panels)),
        note=f"{where}. Dashed, of the same colour: what would be reached if time went with the "
        "bytes that are read.",
    )


def _panel(mix: str, rows: pd.DataFrame) -> Panel:
    marks: list[Mark] = [Rule(1.0, look=Look(themes.MUTED, "none"))]
    known = rows.to_dict("records")
    for i, batch in enumerate(sorted({row["batch"] for row in known})):
        of = [row for row in known if row["batch"] == batch]
        x = np.array(sorted({row["n"] for row in of}), np.float64)
        reached, most = (
            np.array([np.mean([row[name] for row in of if row["n"] == n]) for n in x])
            for name in ("speed-up", "limit")
        )
        look = Look.series(i)
        marks.append(Line(x, most, Look(look.colour, "none", "dashed", width=1.2)))
        marks.append(Line(x, reached, look, f"batch {batch}", points=True))
    highest = max(
        float(np.nanmax(rows[["speed-up", "limit"]].to_numpy(np.float64), initial=1.0)), 1.0
    )
    ticks = tuple((float(n), tokens(n)) for n in sorted(set(rows["n"])))
    return Panel(
        Axis("", log=2, ticks=ticks), Axis("", 0.0, 1.08 * highest), tuple(marks), mix, 210.0, 160.0
    )
