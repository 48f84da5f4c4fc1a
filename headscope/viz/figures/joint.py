"""Heads patched together, beside random sets of as many."""

from headscope.heads import label
from headscope.joint import JointEffect
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.marks import Look, Rule
from headscope.viz.rows import Row, rows_panel

_NAMED = 8


def joint(found: JointEffect) -> Chart:
    """The effect of the tested set with its interval, and of each control set.

    Args:
        found: as `headscope.patching.joint_effect` gives it.

    Raises:
        HeadscopeError: the model does not tell clean from corrupt, so that there are no effects.
    """
    found.check_scale()
    controls = found.control_effects().tolist() if len(found.sets) > 1 else []
    rows = [
        Row(
            "tested heads" if row["heads"] == "tested" else f"{row['sets']} {row['heads']} sets",
            (row["effect"], row["low"], row["high"]),
            "tested" if row["heads"] == "tested" else "",
            [] if row["heads"] == "tested" else controls,
        )
        for row in found.table().to_dict("records")
    ]
    one = Rule(1.0, "x", Look(themes.INK, "none", "dashed", width=1.0), "the other run's answer")
    heads = ", ".join(map(label, found.tested[:_NAMED]))
    more = f" and {len(found.tested) - _NAMED} more" if len(found.tested) > _NAMED else ""
    return Chart(
        f"{found.direction.capitalize()} {heads}{more} together: {found.model} on {found.task}",
        (rows_panel(rows, "", "effect, share of the gap", at=(one,)),),
        note="Lines: 95 % interval over pairs for the tested set, 5 to 95 % of the sets for "
        f"controls. Thin ticks: each control set. {found.done} pairs.",
    )
