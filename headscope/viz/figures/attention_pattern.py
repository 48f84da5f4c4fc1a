"""Where one head looks: queries downwards, keys across, tokens on both axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headscope.errors import HeadscopeError
from headscope.viz.chart import Chart
from headscope.viz.marks import Mark
from headscope.viz.panel import Axis, Panel
from headscope.viz.pattern_cells import pattern_cells, pattern_outline
from headscope.viz.pooling import checked, max_pool, square
from headscope.viz.tokens import labels

if TYPE_CHECKING:
    from headscope.patterns.base import Pattern

EXACT = 256  # tokens up to which every weight is told
_PITCH, _SIDE = 17.0, 520.0


def attention_pattern(
    weights: np.ndarray,
    tokens: Sequence[str] | None = None,
    *,
    name: str = "",
    pattern: "Pattern | None" = None,
    size: int = 1,
) -> Chart:
    """One head's pattern; beyond 256 tokens the highest weight of each square of tokens, of which
    there are at most 512 in a row.

    Args:
        weights: [query, key], of one text and itself; what lies above the diagonal is not shown.
        tokens: the text of every token; numbers if left out.
        name: what is shown, such as "L17H3 of smollm2".
        pattern: a pattern whose edge is drawn, such as the one that a profile assigns.
        size: tokens on a side of the squares that `weights` are of already.

    Raises:
        HeadscopeError: weights are no square matrix, or not as large as the text.
    """
    found = checked(weights)
    rows, columns = found.shape
    if rows != columns:
        raise HeadscopeError(
            f"A pattern has as many queries as keys, and this one has {rows} and {columns}."
        )
    n = rows * size if tokens is None else len(tokens)
    if -(-n // size) != rows:
        raise HeadscopeError(
            f"{n} tokens do not belong to a pattern of {rows} × {rows} squares of {size}."
        )
    told = tuple(map(str, range(n))) if tokens is None else tuple(tokens)
    more = square(rows)
    pooled, size = max_pool(found, more), size * more
    exact = len(pooled) <= EXACT
    marks: list[Mark] = [pattern_cells(pooled, size, exact)]
    if pattern is not None:
        marks.append(pattern_outline(pattern, n, size))
    names = labels(told, size)
    side = min(_SIDE, max(_PITCH * len(names), 60.0)) if exact else max(_SIDE, len(names))
    note = "A row shows where one query looks; its weights add up to 1, less any learned sink's."
    if size > 1:
        note = (
            f"{n:,} tokens: every cell is the highest weight of {size} × {size} pairs. Labels say "
            "where a square begins."
        )
    panel = Panel(
        Axis("key", names=names),
        Axis("query", names=names, down=True),
        tuple(marks),
        width=side,
        height=side,
        square=True,
    )
    return Chart(f"Attention of {name}" if name else "Attention pattern", (panel,), note=note)
