"""Groups of heads in the plane of the two main components of their scores."""

import numpy as np

from headscope.clusters import Clusters
from headscope.viz.chart import Chart
from headscope.viz.charts import signed
from headscope.viz.marks import Dots, Look
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words


def clusters(found: Clusters) -> Chart:
    """Every head as a dot; its cluster as hue and mark.

    Args:
        found: as `HeadMap.clusters` gives it.
    """
    marks = []
    described = found.described.to_dict("records")
    strongest = {row["cluster"]: words(row["strongest"]) for row in described}
    for cluster in strongest:
        heads = found.table.loc[found.table["cluster"] == cluster]
        said = [f"{name}\ncluster {cluster}: {strongest[cluster]}" for name in heads["name"]]
        marks.append(
            Dots(
                np.asarray(heads["pc1"]),
                np.asarray(heads["pc2"]),
                Look.series(cluster),
                f"{cluster}: {len(heads)} heads, {_first(strongest[cluster])}",
                said=said,
            )
        )
    first, second = (f"component {i + 1}, {found.explained[i]:.0%} of variance" for i in (0, 1))
    note = (
        f"k-means in the components that hold 95 % of the variance; silhouette "
        f"{signed(found.silhouette)}, which is near 0 where clusters run into each other. After "
        "each cluster: the scores that set it apart, with their mean in standard deviations."
    )
    panel = Panel(Axis(first), Axis(second), tuple(marks), width=560.0, height=420.0)
    return Chart(
        f"{found.k} clusters of the heads of {found.model} by their scores", (panel,), note=note
    )


def _first(strongest: str) -> str:
    return ", ".join(strongest.split(", ")[:2])
