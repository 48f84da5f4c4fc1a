"""A text through one layer: headscope and its baselines in the same rounds."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from headscope.bench.baselines import Baseline
from headscope.bench.case import Case
from headscope.bench.contending import contenders, timed
from headscope.bench.limit import SIDE, limit_of
from headscope.bench.meters import Meter
from headscope.bench.result import PrefillRow, Timed, counted
from headscope.bench.timing import interleaved
from headscope.errors import HeadscopeError
from headscope.kernels import attending
from headscope.kernels.api import Output, sparse_attention
from headscope.kernels.attending import Ready

if TYPE_CHECKING:
    from headscope.kernels.mixed import Dispatch

OURS, ATTENTION, LISTS = "headscope", "headscope: attention", "headscope: lists"


@torch.no_grad()
def measure_prefill(
    case: Case,
    against: Sequence[Baseline],
    meter: Meter,
    rounds: int,
    mix: str,
    layers: int = 1,
    dispatch: "Dispatch" = "auto",
) -> PrefillRow:
    """Time one layer over one text.

    Args:
        against: baselines; one of them is dense.
        rounds: in each of which every contender is timed once.
        mix: what the row is called.
        layers: how many layers of the profile have these rules.
        dispatch: where heads that see everything are computed.

    Raises:
        HeadscopeError: headscope's kernels do not take the case, or no dense kernel does.
    """
    attention = case.attention()

    def ready() -> Ready:
        found = attending.ready(attention, case.rules, dispatch)
        assert found is not None  # a whole text stands in order
        return found

    def ours() -> Output:
        # Without a log-sum-exp, which no baseline gives.
        return sparse_attention(
            case.q, case.k, case.v, case.rules, impl="triton", dispatch=dispatch, with_lse=False
        )

    first = meter.seconds(ours)
    done = ours()
    assert done.ran is not None
    others, left_out = contenders(case, against, done.z, meter)
    plan_seconds = meter.seconds(_anew(ready))
    given = ready()
    device = case.q.device
    limit, limit_64 = (limit_of(given.resolved, case.n, side, device) for side in (SIDE, SIDE // 2))
    calls = {name: each.runnable.call for name, each in others.items()} | {OURS: ours}
    by_content = bool(given.resolved.selections)
    if by_content:
        calls |= {ATTENTION: lambda: given.run(attention, with_lse=False), LISTS: ready}
    ran, done = done.ran, None  # its output takes no part in the peaks below
    timings = interleaved(calls, rounds, meter)
    dense = timings.fastest(dense_ones(against, others, left_out))

    def part(name: str, first: float | None = None) -> Timed:
        return timed(name, calls[name], dense, timings, meter, first)

    return PrefillRow(
        mix=mix,
        layers=layers,
        rounds=rounds,
        n=case.n,
        rules=counted(case.rules),
        dense=dense,
        asked=dispatch,
        dispatch=ran.dispatch,
        dense_part=ran.dense,
        programs=ran.programs,
        limit=limit,
        limit_64=limit_64,
        ours=part(OURS, first),
        attention=part(ATTENTION) if by_content else None,
        lists=part(LISTS) if by_content else None,
        plan_seconds=plan_seconds,
        others={name: each.timed(name, dense, timings, meter) for name, each in others.items()},
        left_out=dict(left_out),
    )


def _anew(ready: Callable[[], Ready]) -> Callable[[], Ready]:
    """The same where no plan is kept."""
    from headscope.kernels import mixed, plan, tiles

    def call() -> Ready:
        mixed.prepare.cache_clear()
        plan.plan.cache_clear()
        tiles.forget()
        return ready()

    return call


def dense_ones(
    against: Sequence[Baseline], others: Mapping[str, object], left_out: Mapping[str, str]
) -> list[str]:
    """The dense kernels among those that run.

    Raises:
        HeadscopeError: there are none, so that nothing can be compared with.
    """
    names = [each.name for each in against if each.dense]
    found = [name for name in names if name in others]
    if not found:
        said = "; ".join(f"{name}: {left_out[name]}" for name in names)
        raise HeadscopeError(f"No dense kernel runs here to compare with ({said}).")
    return found
