"""A head map by patching: how far each head alone carries the answer over."""

from headscope.patch_map import PatchMap
from headscope.viz.chart import Chart
from headscope.viz.effect_map import LEVEL, effect_panels, ringed


def patch_map(found: PatchMap) -> Chart:
    """Every head as a cell, and those with the largest effect with their intervals.

    Orange carries the answer towards that of the other run, blue away from it.

    Args:
        found: as `headscope.patching.patch_map` gives it.

    Raises:
        HeadscopeError: the model does not tell clean from corrupt, so that there are no effects.
    """
    found.check_scale()
    table = found.table()
    panels = effect_panels(
        table, "effect, share of the gap", ("change", "q"), layers=found.layers,
        n_heads=found.n_heads, missing="not patched",
    )  # fmt: skip
    sure = int((table["q"].to_numpy() <= LEVEL).sum())
    return Chart(
        f"{found.direction.capitalize()}, head by head: {found.model} on {found.task}",
        panels,
        columns=2 if sum(panel.width for panel in panels) < 900 else 1,
        note="At 1 the answer is that of the other run; empty cells were not patched. "
        f"{ringed(sure)} {found.done} pairs, of which {found.told_apart} are told apart.",
    )
