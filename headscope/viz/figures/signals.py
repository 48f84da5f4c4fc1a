"""Which heads read signals that earlier heads wrote."""

import numpy as np

from headscope.errors import HeadscopeError
from headscope.signals import Signals
from headscope.viz.chart import Chart
from headscope.viz.marks import Cells
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import sequential


def signals(found: Signals) -> Chart:
    """For every head that fires, the share of its signals that earlier heads wrote.

    Args:
        found: as `headscope.signals.trace_signals` gives it.

    Raises:
        HeadscopeError: no head fired.
    """
    fires = found.firings > 0
    if not fires.any():
        raise HeadscopeError(
            "No head fired on these prompts; trace longer ones, or lower `attention`."
        )
    given = found.given.sum((0, 1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(fires, given / (2 * found.signal), np.nan)
        logits = np.where(fires, found.signal / found.firings, np.nan)
    layers, heads = share.shape
    names = [[f"L{layer}H{head}" for layer in found.layers] for head in range(heads)]
    cells = Cells(
        share.T,
        sequential(0.0, 1.0, title="share from earlier heads"),
        said=np.array(names, object),
        fields=("firings", "logits of a signal"),
        numbers=np.stack([found.firings.T, logits.T], -1).astype(np.float64),
    )
    pitch = max(9.0, min(24.0, 620.0 / layers))
    panel = Panel(
        Axis("layer", names=tuple(map(str, found.layers))),
        Axis("head", names=tuple(map(str, range(heads))), down=True),
        (cells,),
        width=pitch * layers,
        height=pitch * heads,
    )
    return Chart(
        f"Signals between heads of {found.model}",
        (panel,),
        note=f"{found.prompts} prompts. Empty: the head never fired, with attention above "
        f"{found.attention:g}. The rest of a signal came from embeddings, MLPs and biases.",
    )
