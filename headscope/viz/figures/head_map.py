"""Every head as a cell: its role as hue and letter, its confidence as depth of colour."""

from collections.abc import Collection

from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.viz.chart import Chart
from headscope.viz.head_map import Drawing, affordable, shape
from headscope.viz.paint import Theme
from headscope.viz.role_cells import role_key, role_panel
from headscope.viz.view import View

_NOTE = (
    "The fuller a colour, the further the score lies beyond its role's cut; palest where other "
    "prompts might decide otherwise."
)


def head_map(found: HeadMap, ringed: Collection[Head] = ()) -> Chart:
    """The roles of all heads.

    Args:
        found: what a scan found.
        ringed: heads to draw a ring around.
    """
    tooltips = affordable(found)
    view = View.of(found, intervals=tooltips == "scores")
    name = found.info.model.name

    def drawing(theme: Theme) -> str:
        return Drawing(view, name, theme, tooltips, ringed).svg()

    return Chart(
        f"Head map of {name}",
        (role_panel(view, ringed=ringed),),
        key=role_key(view),
        note=f"{shape(found)}. {_NOTE}",
        drawing=drawing,
    )
