"""Two runs beside each other: head by head where they have the same heads."""

from typing import Any

import numpy as np
import pandas as pd

from headscope.compare import compare
from headscope.viz.view import View, words

NO_ROLE = "no role"


def same_heads(first: View, second: View) -> bool:
    """Whether heads stand for each other: the maps have one shape."""
    maps = first.head_map, second.head_map
    return maps[0].layers == maps[1].layers and maps[0].n_heads == maps[1].n_heads


def confusion(first: View, second: View) -> pd.DataFrame:
    """How many heads have which primary role in the one and which in the other.

    Only roles that both maps can decide are told apart. Rows are the first map's.
    """
    shared = [role for role in first.rules if role in second.rules]
    roles = [
        [cell.role if cell.role in shared else "" for cell in view.cells]
        for view in (first, second)
    ]
    order = [role for role in [*shared, ""] if any(role in each for each in roles)]
    counts = np.zeros((len(order), len(order)), int)
    for one, other in zip(*roles, strict=True):
        counts[order.index(one), order.index(other)] += 1
    names = [words(role) or NO_ROLE for role in order]
    return pd.DataFrame(counts, index=names, columns=names)


def agreement_rows(first: View, second: View, k: int) -> list[dict[str, Any]]:
    """Every score that both have, those that agree least first."""
    table = compare(first.head_map, second.head_map, k).table
    return table.sort_values("spearman", kind="stable").to_dict("records")


def changed(first: View, second: View) -> list[dict[str, Any]]:
    """Heads whose primary role differs, with both roles."""
    shared = {role for role in first.rules if role in second.rules}
    rows = []
    for one, other in zip(first.cells, second.cells, strict=True):
        roles = [cell.role if cell.role in shared else "" for cell in (one, other)]
        if roles[0] != roles[1]:
            sure = one.level > 0 and other.level > 0
            rows.append({"name": one.name, "first": roles[0], "second": roles[1], "sure": sure})
    return sorted(rows, key=lambda row: not row["sure"])
