"""Every figure of a head map, of patterns, of a bench: by name, from made-up results."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from made_up import NAMES, a_map

from headscope.agreement import agreement
from headscope.bench.result import Bench, PrefillRow, Timed
from headscope.bench.timing import Spread
from headscope.clusters import cluster
from headscope.headmap import HeadMap
from headscope.headmap import Scores as HeadScores
from headscope.patterns.streaming import Streaming
from headscope.viz import Chart, Patterns, figures

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\x1b\ud800 שלום 👋🏽 $x$ %{z}"
TOKENS = (
    "<script>alert(1)</script>", ' "quoted"', "'", "\x00", "\ud800", "👋🏽", " שלום", "\n", "",
    " a",
)  # fmt: skip


def some_patterns(
    n: int = 10, heads: int = 3, model: str = "made-up", layer: int = 1, size: int = 1
) -> Patterns:
    """Random patterns over tokens of every awkward kind."""
    rng = np.random.default_rng(0)
    squares = -(-n // size)
    found = {}
    for head in range(heads):
        weights = np.tril(rng.random((squares, squares)) ** (1 + head))
        found[layer, head] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return Patterns(model, tuple(TOKENS[i % len(TOKENS)] for i in range(n)), size, found)


def some_bench(mix: str = "a") -> Bench:
    def timed(speedup: float) -> Timed:
        spread = Spread(median=speedup, low=speedup, high=speedup)
        return Timed(ms=Spread(median=1 / speedup, low=0, high=9), speedup=spread, peak_bytes=5)

    rows = [
        PrefillRow(
            mix=mix, layers=1, rounds=3, n=n, rules={"full": 4}, dense="cudnn", asked="auto",
            dispatch="hybrid", dense_part="cudnn", programs=1, limit=4.0, limit_64=5.0,
            ours=timed(2.0 + n / 8192), plan_seconds=0.1, left_out={},
            others={"cudnn": timed(1.0), "flex": timed(1.5)},
        )
        for n in (8192, 32768)
    ]  # fmt: skip
    return Bench(
        profile="p", device=mix, dtype="bfloat16", date="2026-01-02", command="bench",
        versions={"torch": "2.11"}, prefill=rows,
    )  # fmt: skip


def holed(head_map: HeadMap) -> HeadMap:
    """The same map with one head whose scores are not known."""
    scores = {}
    for name, score in head_map.scores.items():
        values = score.values.copy()
        values[:, 0, 0] = np.nan
        scores[name] = HeadScores(values, score.kv_view)
    return HeadMap(head_map.info, scores)


def of_map(head_map: HeadMap) -> Mapping[str, Callable[[], Chart]]:
    """The figures of one map."""
    names = list(head_map.scores)
    return {
        "head_map": lambda: figures.head_map(head_map, ringed=head_map.heads()[:1]),
        "score_distribution": lambda: figures.score_distribution(head_map),
        "score_scatter": lambda: figures.score_scatter(head_map, names[0], names[1]),
        "agreement": lambda: figures.agreement(agreement(head_map)),
        "model_comparison": lambda: figures.model_comparison(head_map, head_map),
    }


def every(model: str = "made-up") -> Mapping[str, Callable[[], Chart]]:
    """All figures of results that bear a name."""
    head_map = a_map(spec=model)
    patterns = some_patterns(model=model)
    pooled = some_patterns(1500, 1, model, size=3)
    return {
        **of_map(head_map),
        "by depth": lambda: figures.model_comparison(head_map, a_map(7, 4, 4, spec=model)),
        "clusters": lambda: figures.clusters(cluster(head_map, 3)),
        "attention_pattern": lambda: figures.attention_pattern(
            patterns["L1H1"], patterns.tokens, name=f"L1H1 of {model}",
            pattern=Streaming(sink=1, window=3),
        ),
        "pooled pattern": lambda: figures.attention_pattern(
            pooled["L1H0"], pooled.tokens, name=model, size=3,
            pattern=Streaming(sink=4, window=64),
        ),
        "gallery": lambda: figures.gallery(patterns, 1, a_map(spec=model)),
        "kernel_speed": lambda: figures.kernel_speed(some_bench(model.replace("\ud800", ""))),
    }  # fmt: skip


FIGURES = sorted(every())
SHAPES = {"1x1": (1, 1, 1), "32x32": (32, 32, 8), "80x64": (80, 64, 8)}


@cache
def large_map(shape: str, probes: int = 25) -> HeadMap:
    """A map of 25 scores, 8 of which rules ask for."""
    return a_map(*SHAPES[shape], [*NAMES, *(f"probe_{i}" for i in range(probes - len(NAMES)))])


def curves(found: HeadMap) -> Mapping[str, Callable[[], Chart]]:
    return {
        "slot_curve": lambda: figures.slot_curve(found),
        "waveform": lambda: figures.waveform(found),
        "distances": lambda: figures.distances(found),
        "sink_profile": lambda: figures.sink_profile(found),
        "confidence": lambda: figures.confidence(found),
    }


def marks(found: Chart, kind: type) -> list[Any]:
    return [mark for panel in found.panels for mark in panel.marks if isinstance(mark, kind)]
