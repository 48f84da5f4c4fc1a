"""Baselines made ready for a case: first calls, agreement, or why they are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.bench.baselines import Baseline, Runnable
from headscope.bench.case import Case
from headscope.bench.meters import Call, Meter
from headscope.bench.result import Timed
from headscope.bench.timing import Timings

_APART = 0.02  # of the output, more than bfloat16 rounds by


@dataclass(frozen=True, eq=False)
class Contender:
    """A baseline that runs.

    Attributes:
        runnable: what is called.
        first_seconds: of its first call.
        difference: of its output from headscope's, as a share of it; None of dense ones.
    """

    runnable: Runnable
    first_seconds: float
    difference: float | None

    def timed(self, name: str, dense: str, timings: Timings, meter: Meter) -> Timed:
        """Its part of a row."""
        found = timed(name, self.runnable.call, dense, timings, meter, self.first_seconds)
        more = {"mask_seconds": self.runnable.mask_seconds, "difference": self.difference}
        return found.model_copy(update=more)


def timed(
    name: str,
    call: Call,
    dense: str,
    timings: Timings,
    meter: Meter,
    first_seconds: float | None = None,
) -> Timed:
    """What is said of any contender of a row.

    Args:
        dense: the contender that speed-ups are over.
        first_seconds: of its first call, where that is known.
    """
    return Timed(
        ms=timings.of(name),
        speedup=timings.ratio(dense, name),
        peak_bytes=meter.peak(call),
        first_seconds=first_seconds,
    )


def contenders(
    case: Case,
    against: Sequence[Baseline],
    z: Float[Tensor, "1 head token d"],
    meter: Meter,
) -> tuple[Mapping[str, Contender], Mapping[str, str]]:
    """Baselines that compute a case, by name; and why the others do not.

    Args:
        z: headscope's output, which those that follow the rules have to give too.
    """
    if any(each.compiles for each in against):
        torch.compiler.reset()  # it takes a function compiled for a few cases only, then refuses
    found: dict[str, Contender] = {}
    left_out: dict[str, str] = {}
    for each in against:
        reason = each.why_not(case)
        if reason is None:
            try:
                made = _made(each, case, z, meter)
            except Exception as error:  # a baseline that breaks must not take the bench with it
                reason = f"it failed ({type(error).__name__}: {_first_line(error)})"
            else:
                if made.difference is None or made.difference <= _APART:
                    found[each.name] = made
                    continue
                reason = f"its output differs from headscope's by {made.difference:.2%}"
        left_out[each.name] = reason
    return found, left_out


def _made(each: Baseline, case: Case, z: Tensor, meter: Meter) -> Contender:
    runnable = each.ready(case)
    first = meter.seconds(runnable.call)
    difference = None
    if runnable.joined is not None:
        difference = _difference(runnable.joined(), z)
    return Contender(runnable, first, difference)


def _difference(one: Tensor, other: Tensor) -> float:
    """Root of the mean square of the difference, as a share of the other's; inf for NaN."""
    parts = [
        ((a.float() - b.float()).square().sum(), b.float().square().sum())
        for a, b in zip(one.unbind(1), other.unbind(1), strict=True)
    ]
    off, size = (torch.stack(x).sum() for x in zip(*parts, strict=True))
    share = float((off / size).sqrt())
    return share if share == share else float("inf")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
