"""How far back heads look."""

from collections.abc import Sequence

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.heads import Head, label
from headscope.viz.chart import Chart
from headscope.viz.curves import band_note, curve, head_lines, points_of, shown
from headscope.viz.head_patterns import Patterns
from headscope.viz.marks import Bars, Line, Look, Rule
from headscope.viz.panel import Axis, Panel, tokens
from headscope.viz.view import words

_MEANS = ("distance", "waad")
_BINS = 24
_MOST = 8  # heads whose lines can be told apart


def distances(found: HeadMap | Patterns, heads: Sequence[Head | str] | None = None) -> Chart:
    """Attention by distance.

    Args:
        found: a head map whose scan had the probes `distance`, `offset` or `causal_mask_bias`: how
            many heads look how far on average, and the curves of some; or patterns, of a text that
            was short enough to keep every weight: the share of attention by distance.
        heads: whose curves; of a head map those of the highest `offset` if left out, of patterns
            the first 8.

    Raises:
        HeadscopeError: nothing of it was measured, patterns are pooled, or there is no such head.
    """
    return _of_text(found, heads) if isinstance(found, Patterns) else _of_map(found, heads)


def _of_map(found: HeadMap, heads: Sequence[Head | str] | None) -> Chart:
    panels = [_histogram(found, name) for name in _MEANS if name in found.scores]
    notes = []
    if "offset_curve" in found.curves:
        back = curve(found, "offset_curve", "offset")
        x, axis = points_of(found, "offset_curve", back.shape[-1])
        lines = head_lines(found, back, x, shown(found, heads, "offset"), points=True)
        panels.append(_lines(axis, "attention", tuple(lines), "Attention at one distance"))
        notes.append(band_note(back))
    if "causal_mask_bias_profile" in found.curves:
        flat = curve(found, "causal_mask_bias_profile", "causal_mask_bias")
        x, axis = points_of(found, "causal_mask_bias_profile", flat.shape[-1])
        lines = head_lines(found, flat, x, shown(found, heads, "offset"))
        marks = (Rule(1.0), *lines)
        panels.append(_lines(axis, "attention, of even", marks, "With every rotation taken off"))
        notes.append("Dashed at 1: even attention.")
    if not panels:
        raise HeadscopeError(
            "This head map says nothing of distances; scan with the probe 'distance' or 'offset'."
        )
    return Chart(
        f"How far back heads look: {found.info.model.name}",
        tuple(panels),
        columns=2,
        note=" ".join(dict.fromkeys(notes)),
    )


def _histogram(found: HeadMap, name: str) -> Panel:
    """Heads by mean distance, in steps that grow with it."""
    values = found[name].mean().ravel()
    known = np.log2(np.maximum(values[np.isfinite(values)], 0) + 1)
    top = max(float(known.max(initial=1.0)), 1.0)
    counts, edges = np.histogram(known, _BINS, (0.0, top))
    middles = (edges[1:] + edges[:-1]) / 2
    said = [
        f"{2**a - 1:.1f} to {2**b - 1:.1f} tokens: {n} head{'' if n == 1 else 's'}"
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    ticks = tuple((float(np.log2(n + 1)), tokens(n)) for n in _round(2**top - 1))
    title = "Mean distance" if name == "distance" else f"Mean distance, {words(name)}: cut short"
    bars = Bars(middles, counts.astype(np.float64), 0.9 * top / _BINS, said=said)
    return Panel(
        Axis("tokens", 0.0, top, ticks=ticks), Axis("heads", 0.0), (bars,), title, 300.0, 170.0
    )


def _round(most: float) -> list[float]:
    return [n for n in (0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0) if n <= most]


def _lines(axis: Axis, unit: str, marks: tuple[Line | Rule, ...], title: str) -> Panel:
    return Panel(axis, Axis(unit, 0.0), marks, title, 300.0, 170.0)


def _of_text(found: Patterns, heads: Sequence[Head | str] | None) -> Chart:
    names = list(found.weights)[:_MOST] if heads is None else list(heads)
    if found.size > 1:
        raise HeadscopeError(
            f"These patterns hold the highest weight of {found.size} × {found.size} tokens, which "
            "says nothing of distances; compute them of a shorter text."
        )
    n = len(found.tokens)
    query, key = np.tril_indices(n)
    place = np.floor(np.log2(np.maximum(query - key, 1))).astype(int) + (query > key)
    bins = int(place.max(initial=0)) + 1
    looks = [Look.series(i) for i in range(len(names))]
    lines = []
    for head, look in zip(names, looks, strict=True):
        weights = np.asarray(found[head], np.float64)[query, key]
        share = np.bincount(place, weights, bins) / n
        name = head if isinstance(head, str) else label(head)
        lines.append(Line(np.arange(bins, dtype=np.float64), share, look, name, points=True))
    said = ["0", "1", *(f"{2 ** (i - 1)}–{2**i - 1}" for i in range(2, bins))][:bins]
    panel = Panel(
        Axis("tokens back", names=tuple(said)),
        Axis("share of attention", 0.0),
        tuple(lines),
        width=420.0,
        height=240.0,
    )
    return Chart(
        f"How far back heads of {found.model} look on a text of {n:,} tokens",
        (panel,),
        note="The mean over all rows; steps double, so that an even spread rises to the right.",
    )
