"""Curves that a scan keeps of every head: which heads to show, and how sure they are."""

from collections.abc import Sequence

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.heads import Head, label, selected_heads
from headscope.scores import Scores
from headscope.viz import themes
from headscope.viz.marks import Line, Look
from headscope.viz.panel import Axis

_REACH = 1024  # tokens of a waveform, where a run says nothing that makes sense
SHOWN = 5  # heads that are drawn where none were named


def curve(found: HeadMap, name: str, probe: str) -> np.ndarray:
    """[prompt, layer, head, point] of a curve.

    Raises:
        HeadscopeError: the scan did not measure it.
    """
    if name not in found.curves:
        raise HeadscopeError(
            f"This head map holds no curve {name!r}; scan with the probe {probe!r}."
        )
    return np.asarray(found.curves[name], np.float64)


def points_of(found: HeadMap, name: str, n: int) -> tuple[np.ndarray, Axis]:
    """Where the n points of a curve stand, and the axis that they stand on."""
    if name == "waveform_curve":
        given = found.info.probes.get("waveform", {}).get("reach")
        reach = given if isinstance(given, int) and 0 < given < 2**31 else _REACH
        ends = [max(p + 1, round(reach ** (p / max(1, n - 1)))) for p in range(n)]
        return np.array(ends, np.float64), Axis("distance of key and query, tokens", log=2)
    if name == "causal_mask_bias_profile":
        title = "place of the key, oldest to newest"
        return (np.arange(n) + 0.5) / n, Axis(title, 0.0, 1.0)
    titles = {"offset_curve": "tokens back", "basin_slots": "slot of the document"}
    return np.arange(1, n + 1, dtype=np.float64), Axis(titles.get(name, ""))


def shown(found: HeadMap, heads: Sequence[Head | str] | None, by: str) -> list[Head]:
    """The heads that were named, or those that a score ranks first.

    Raises:
        HeadscopeError: the model has no such head.
    """
    if heads is not None:
        name = found.info.model.name
        return list(selected_heads(heads, found.layers, found.n_heads, name))
    if by not in found.scores:
        return found.heads()[:SHOWN]
    table = found.top(by, SHOWN)
    return list(zip(table["layer"].tolist(), table["head"].tolist(), strict=True))


def head_lines(
    found: HeadMap, values: np.ndarray, x: np.ndarray, heads: Sequence[Head], points: bool = False
) -> list[Line]:
    """A line for each head and one for all of them together, each with its interval over prompts.

    Args:
        values: [prompt, layer, head, point].
        x: [point].
    """
    rows = [found.layers.index(layer) for layer, _ in heads]
    picked = values[:, rows, [head for _, head in heads]]
    every = values.mean((1, 2))[:, None]
    scores = Scores(np.concatenate([every, picked], 1).astype(np.float32), "native")
    mean, (low, high) = scores.mean(), scores.interval(found.info.seed)
    names = ["all heads", *map(label, heads)]
    looks = [Look(themes.MUTED, "none", "dashed"), *(Look.series(i) for i in range(len(heads)))]
    return [
        Line(x, mean[i], looks[i], name, low[i], high[i], points=points and i > 0)
        for i, name in enumerate(names)
    ]


def band_note(values: np.ndarray) -> str:
    """What the bands are."""
    n = len(values)
    if n < 2:
        return "One prompt was read, so that nothing says how sure the curves are."
    return f"Bands: 95 % intervals, bootstrapped over {n} prompts."
