"""The waves that rotary positions lay over the logits of heads, by distance."""

from collections.abc import Sequence

from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.curves import band_note, curve, head_lines, points_of, shown
from headscope.viz.marks import Look, Rule
from headscope.viz.panel import Axis, Panel


def waveform(found: HeadMap, heads: Sequence[Head | str] | None = None) -> Chart:
    """The upper envelope of a head's logits, in shares of that at no distance.

    Args:
        found: a head map whose scan had the probe `waveform`.
        heads: which; those of the deepest trough if left out.

    Raises:
        HeadscopeError: it was not measured, or there is no such head.
    """
    waves = curve(found, "waveform_curve", "waveform")
    x, distance = points_of(found, "waveform_curve", waves.shape[-1])
    lines = head_lines(found, waves, x, shown(found, heads, "waveform"))
    panel = Panel(
        distance,
        Axis("logit, as a share of that at distance 0"),
        (Rule(0.0, look=Look(themes.MUTED, "none", width=1.0)), *lines),
        width=520.0,
        height=280.0,
    )
    return Chart(
        f"Waves of the rotary positions in heads of {found.info.model.name}",
        (panel,),
        note="Of a query and a key that agree in every rotary pair, weighted by the head's own "
        "norms. Where a curve is low, what stands "
        f"at that distance is hard to attend to. {band_note(waves)}",
    )
