"""What every rule would lose, layer by layer."""

import numpy as np

from headscope.errors import HeadscopeError
from headscope.sparsity.recalls import LOSSES, Loss, Recalls
from headscope.viz.chart import Chart
from headscope.viz.marks import Cells
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import sequential


def recalls(found: Recalls, loss: Loss | None = None) -> Chart:
    """The loss of each rule, the mean over the heads of a layer.

    Args:
        found: as `headscope.sparsity.measure_recall` gives it.
        loss: of `headscope.sparsity.recalls.LOSSES`; the one to plan by if left out.

    Raises:
        HeadscopeError: it was not measured, or not all prompts were.
    """
    name = found.best_loss if loss is None else loss
    if not found.done:
        raise HeadscopeError("No prompt has been measured yet; run the measurement again to go on.")
    by_head = found.loss(name)
    values = by_head.mean(1).T
    density = found.densities().mean((0, 2)).T
    most = by_head.max(1).T
    rules = tuple(map(str, found.rules))
    layers = found.model.layers
    said = np.array([[f"{rule}, layer {layer}" for layer in layers] for rule in rules], object)
    top = float(np.nanmax(values, initial=0.0))
    cells = Cells(
        values,
        sequential(0.0, top if top > 0 else 1.0, root=True, title="mean of a layer's heads"),
        said=said,
        fields=("most of a head", "share of pairs computed"),
        numbers=np.stack([most, density], -1),
        digits=4,
    )
    pitch = max(9.0, min(22.0, 620.0 / len(layers)))
    panel = Panel(
        Axis("layer", names=tuple(map(str, layers))),
        Axis(names=rules, down=True),
        (cells,),
        width=max(pitch * len(layers), 24.0),
        height=20.0 * len(rules),
    )
    lengths = ", ".join(f"{n:,}" for n in found.lengths)
    return Chart(
        f"What rules would lose of the heads of {found.model.name}: {LOSSES[name]}",
        (panel,),
        note=f"Shaded by the square root. {found.done} prompts of {lengths} tokens.",
    )
