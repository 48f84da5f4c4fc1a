"""Attention parked on tokens that say nothing, by layer or by token."""

from collections.abc import Sequence

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.heads import Head, label
from headscope.viz.chart import Chart
from headscope.viz.head_patterns import Patterns
from headscope.viz.marks import Line, Look
from headscope.viz.palette import AWAY, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.tokens import labels

_KINDS = {
    "sink": "On the first token",
    "hidden_sinks": "On sinks beyond the first token",
    "sink_newline": "On line breaks",
    "sink_punctuation": "On punctuation",
    "sink_special": "On special tokens",
}
_COUNT = "hidden_sink_count"
_NAMED = 64  # tokens up to which each is written
_MOST = 8  # heads whose lines can be told apart


def sink_profile(found: HeadMap | Patterns, heads: Sequence[Head | str] | None = None) -> Chart:
    """Where attention is parked.

    Args:
        found: a head map whose scan had the probes `sink`, `hidden_sinks` or `sink_types`: the mass
            of a layer's heads; or patterns, of a text that was short enough to keep every weight:
            what each token gets.
        heads: of patterns, whose; the first 8 if left out.

    Raises:
        HeadscopeError: nothing of it was measured, patterns are pooled, or heads of a head map
            were named.
    """
    if isinstance(found, Patterns):
        return _by_token(found, heads)
    if heads is not None:
        raise HeadscopeError(
            "A head map shows the sinks of whole layers; give patterns to see those of some heads."
        )
    return _by_layer(found)


def _by_layer(found: HeadMap) -> Chart:
    panels = [_panel(found, name, said) for name, said in _KINDS.items() if name in found.scores]
    if not panels:
        raise HeadscopeError(
            "This head map says nothing of sinks; scan with the probe 'sink' or 'hidden_sinks'."
        )
    if _COUNT in found.scores:
        panels.append(_panel(found, _COUNT, "Sinks beyond the first token", "tokens"))
    return Chart(
        f"Where heads park their attention, by layer: {found.info.model.name}",
        tuple(panels),
        columns=min(3, len(panels)),
        note="Lines: the mean of a layer's heads. Bands: from the least to the most of them.",
    )


def _panel(found: HeadMap, name: str, title: str, unit: str = "attention") -> Panel:
    values = found[name].mean()
    layers = np.array(found.layers, np.float64)
    line = Line(
        layers, values.mean(1), Look(Pair.of(AWAY), "none"), "", values.min(1), values.max(1)
    )
    room = (-0.5, 0.5) if len(layers) == 1 else (0.0, 0.0)
    axis = Axis("layer", layers.min() + room[0], layers.max() + room[1])
    return Panel(axis, Axis(unit, 0.0), (line,), title, width=210.0, height=130.0)


def _by_token(found: Patterns, heads: Sequence[Head | str] | None) -> Chart:
    if found.size > 1:
        raise HeadscopeError(
            f"These patterns hold the highest weight of {found.size} × {found.size} tokens, which "
            "says nothing of what a token gets; compute them of a shorter text."
        )
    n = len(found.tokens)
    viewers = np.arange(n, 0, -1)
    lines = []
    for i, head in enumerate(list(found.weights)[:_MOST] if heads is None else heads):
        received = np.tril(np.asarray(found[head], np.float64)).sum(0) / viewers
        name = head if isinstance(head, str) else label(head)
        lines.append(Line(np.arange(n, dtype=np.float64), received, Look.series(i), name,
                          points=n <= _NAMED))  # fmt: skip
    names = labels(found.tokens) if n <= _NAMED else ()
    panel = Panel(
        Axis("" if names else "token", names=names),
        Axis("attention, mean of rows that see it", 0.0),
        tuple(lines),
        width=max(360.0, 14.0 * len(names)),
        height=220.0,
    )
    return Chart(
        f"What each of {n:,} tokens gets from heads of {found.model}",
        (panel,),
        note="The last tokens are seen by few rows, so that their means say little.",
    )
