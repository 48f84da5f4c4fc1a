"""How fast a profile would be, from what was measured of kernels; runs where torch is.

A bench times layers whose heads see everything or a part. Drawn over the share of work that is
left, the share of time that is left is a curve, taken as straight between two measured points. A
layer with less to do than any that was timed takes between its share of the work and the least
time that was measured. Beyond the lengths that were timed nothing is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2

import torch

from headscope.bench.limit import SIDE, dense_tiles
from headscope.bench.result import Bench, DecodeRow, PrefillRow
from headscope.bench.squares import squares
from headscope.patterns.base import Pattern
from headscope.sparsity.budget import Phase
from headscope.sparsity.profile import SparseProfile

_LONGEST = 2**18  # tokens for which tiles are counted
_SAME = 1e-6  # shares of work that differ by less are one


@dataclass(frozen=True)
class Speed:
    """Attention of one phase under a profile, against the best dense kernel.

    Attributes:
        phase: "prefill" is n tokens at once, "decode" one token after n.
        limit: how many times as fast it could be if time went with tiles, or with bytes.
        low, high: how many times as fast it would be by what was measured; None where it cannot be
            told.
        source: where that was measured, or why there is nothing.
    """

    phase: Phase
    limit: float | None
    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class _Point:
    """A measured layer: shares of a dense one."""

    work: float
    low: float
    high: float


def work_left(profile: SparseProfile, n: int, phase: Phase) -> list[float] | None:
    """Of each layer, the share of a dense layer's work: tiles of 128 × 128 tokens of a prompt, or
    bytes of keys and values of a step.

    None where the text decides it, or where n is beyond what is counted.
    """
    if phase == "decode":
        return (profile.held_keys(n).mean(1) / n).tolist()
    if not profile.by_position or n > _LONGEST:
        return None
    counted: dict[Pattern, int] = {}
    shares, here = [], torch.device("cpu")
    for layer in profile.model.layers:
        rules = [rule.at(n) for rule in profile.of_layer(layer)]
        for rule in rules:
            if isinstance(rule, Pattern) and rule not in counted:
                counted[rule] = int(squares(rule, n, SIDE, here)[0].sum())
        total = sum(counted[rule] for rule in rules if isinstance(rule, Pattern))
        shares.append(total / (len(rules) * dense_tiles(n, SIDE)))
    return shares


def speed(profile: SparseProfile, n: int, phase: Phase, benches: Sequence[Bench]) -> Speed:
    """What benches foretell for n tokens; of several the first that reaches."""
    work = work_left(profile, n, phase)
    if work is None:
        reason = "the text decides how much its rules compute" if not profile.by_position else (
            f"tiles are counted up to {_LONGEST:,} tokens"
        )  # fmt: skip
        return Speed(phase, None, None, None, f"Not foretold: {reason}.")
    limit = len(work) / sum(work)
    reasons = []
    for bench in benches:
        curves = _curves(bench, profile, phase)
        if not curves:
            continue
        lengths = sorted(curves)
        if lengths[0] <= n <= lengths[-1]:
            low, high = _time_left(curves, work, n)
            return Speed(phase, limit, 1 / high, 1 / low, _where(bench, profile))
        reasons.append(
            f"{bench.device} was timed from {lengths[0]:,} to {lengths[-1]:,} tokens only."
        )
    why = reasons[0] if reasons else (
        "No bench of such layers lies in the given folders (`headscope bench` makes one)."
    )  # fmt: skip
    return Speed(phase, limit, None, None, f"Not measured on your machine. {why}")


def _time_left(
    curves: Mapping[int, Sequence[_Point]], work: Sequence[float], n: int
) -> tuple[float, float]:
    """(low, high) of the share of a dense layer's time, the mean over layers."""
    below = max(each for each in curves if each <= n)
    above = min(each for each in curves if each >= n)
    part = 0.0 if below == above else log2(n / below) / log2(above / below)
    low = high = 0.0
    for share in work:
        first, second = (_between(curves[each], share) for each in (below, above))
        low += first[0] + part * (second[0] - first[0])
        high += first[1] + part * (second[1] - first[1])
    return low / len(work), high / len(work)


def _curves(bench: Bench, profile: SparseProfile, phase: Phase) -> dict[int, list[_Point]]:
    """Points by length, in the order of work; rows of other rules than the profile's count where
    it has others than full and streaming ones."""
    simple = {"full", "streaming"}
    mine = {rule.name for layer in profile.model.layers for rule in profile.of_layer(layer)}
    rows: Sequence[PrefillRow | DecodeRow]
    if phase == "prefill":
        rows = [r for r in bench.prefill if r.asked == "auto" and r.attention is None]
    else:
        one = min((row.batch for row in bench.decode), default=1)
        rows = [row for row in bench.decode if row.batch == one]
    found: dict[int, dict[float, list[tuple[float, float]]]] = {}
    for row in rows:
        names = {rule.partition("(")[0] for rule in row.rules}
        if row.ours.speedup is None or (mine <= simple and not names <= simple):
            continue
        times = 1 / row.ours.speedup.high, 1 / row.ours.speedup.low
        found.setdefault(row.n, {}).setdefault(round(1 / row.limit, 6), []).append(times)
    return {
        n: [
            _Point(work, min(low for low, _ in times), max(high for _, high in times))
            for work, times in sorted(points.items())
        ]
        for n, points in found.items()
        if len(points) > 1 and max(points) > 0.999
    }


def _between(points: Sequence[_Point], work: float) -> tuple[float, float]:
    if work < points[0].work - _SAME:
        return min(work, points[0].low), points[0].high
    for one, other in pairwise(points):
        if work <= other.work:
            part = max(0.0, (work - one.work) / (other.work - one.work))
            return (
                one.low + part * (other.low - one.low),
                one.high + part * (other.high - one.high),
            )
    return points[-1].low, points[-1].high  # as much to do as a dense layer, which was timed


def _where(bench: Bench, profile: SparseProfile) -> str:
    """Where it was measured, and in what that differs from here."""
    shape = [bench.model.get(name) for name in ("n_heads", "n_kv_heads", "d_head")]
    model = profile.model
    mine = [model.n_heads, model.n_kv_heads, model.d_head]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    told = f"Between times measured on {bench.device} in {bench.dtype} on {bench.date}"
    if shape != mine:
        there, here = (f"{heads} heads on {kv} of {d}" for heads, kv, d in (shape, mine))
        told += f", of layers of {there} where this model has {here}"
    if device != bench.device:
        told += "; not measured on your machine"
    return told + "."
