"""Rounds, and medians of ratios within them; there is no clock."""

import pytest
from bench_cases import Counted

from headscope.bench.timing import Spread, interleaved
from headscope.errors import HeadscopeError


def noop(name: str):
    def call() -> str:
        return name

    return call


def test_each_round_times_all_and_begins_with_another() -> None:
    calls = {name: noop(name) for name in "abc"}
    meter = Counted(iter([[1.0, 2.0, 3.0], [20.0, 30.0, 10.0], [9.0, 3.0, 6.0], [1.0, 2.0, 3.0]]))
    found = interleaved(calls, 4, meter)
    assert meter.warmed == 3
    assert [[call() for call in order] for order in meter.orders] == [
        list("abc"), list("bca"), list("cab"), list("abc"),
    ]  # fmt: skip
    assert found.ms == {
        "a": (1.0, 10.0, 3.0, 1.0), "b": (2.0, 20.0, 6.0, 2.0), "c": (3.0, 30.0, 9.0, 3.0),
    }  # fmt: skip


def test_a_device_that_slows_down_changes_no_ratio() -> None:
    slower = [[2.0 * (1 + i), 1.0 * (1 + i)][:: 1 if i % 2 == 0 else -1] for i in range(9)]
    found = interleaved({"dense": noop("d"), "ours": noop("o")}, 9, Counted(iter(slower)))
    assert found.of("dense").median == 10.0
    assert found.ratio("dense", "ours") == Spread(median=2.0, low=2.0, high=2.0)
    assert found.ratio("dense", "ours", 0.5).median == 1.0
    assert found.fastest(["dense", "ours"]) == "ours"


def test_the_median_is_of_ratios_and_not_a_ratio_of_medians() -> None:
    found = interleaved(
        {"a": noop("a"), "b": noop("b")}, 3, Counted(iter([[1.0, 1.0], [4.0, 10.0], [3.0, 100.0]]))
    )
    assert found.ms == {"a": (1.0, 10.0, 3.0), "b": (1.0, 4.0, 100.0)}
    assert found.ratio("a", "b").median == 1.0  # of 1, 2.5, 0.03; medians are 3 and 4


def test_quartiles() -> None:
    assert Spread.of([5.0]) == Spread(median=5.0, low=5.0, high=5.0)
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(median=3.0, low=2.0, high=4.0)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(HeadscopeError, match="one round at least, not in 0"):
        interleaved({"a": noop("a")}, 0, Counted())
