"""What figures of benches share: a plot of speed-ups by length, and where it was measured."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headscope.viz import themes
from headscope.viz.marks import Line, Look, Rule
from headscope.viz.panel import Axis, Panel, tokens

if TYPE_CHECKING:
    from headscope.bench.result import Bench

_BEST = Look(themes.MUTED, "none")


def speed_panel(mix: str, lengths: Iterable[float], lines: Sequence[Line]) -> Panel:
    """Speed-ups by length in tokens; at 1 a method takes as long as the best dense kernel."""
    highest = max([1.0, *(float(np.nanmax(line.y, initial=1.0)) for line in lines)])
    return Panel(
        Axis("", log=2, ticks=tuple((float(n), tokens(n)) for n in sorted(set(lengths)))),
        Axis("", 0.0, 1.08 * highest),
        (Rule(1.0, look=_BEST), *lines),
        mix,
        width=210.0,
        height=160.0,
    )


def measured_on(found: "Bench") -> str:
    """The device, the width of numbers and PyTorch's version."""
    return f"{found.device}, {found.dtype}, PyTorch {found.versions.get('torch', '?')}"
