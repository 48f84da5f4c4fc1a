"""Choices within budgets, beside all that there could be."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.knapsack import Knapsack

COUNTS = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))  # groups, choices, ...
NUMBERS = st.floats(0, 10, allow_subnormal=False).map(lambda x: round(x, 3))


@st.composite
def sacks(draw: st.DrawFn) -> Knapsack:
    groups, choices, budgets = draw(COUNTS)
    count = groups * choices
    weight = draw(st.lists(NUMBERS, min_size=count * budgets, max_size=count * budgets))
    return Knapsack(
        loss=np.array(draw(st.lists(NUMBERS, min_size=count, max_size=count))),
        group=np.arange(groups).repeat(choices),
        weight=np.array(weight).reshape(budgets, count),
        budget=np.array(draw(st.lists(st.floats(0.5, 40), min_size=budgets, max_size=budgets))),
    )


def everything(sack: Knapsack) -> list[tuple[int, ...]]:
    each = [np.flatnonzero(sack.group == group) for group in np.unique(sack.group)]
    return list(itertools.product(*each))


@settings(deadline=None, max_examples=80)
@given(sacks())
def test_no_choices_within_the_budgets_lose_less(sack: Knapsack) -> None:
    # With room for the rounding of sums: what fits exactly may fit or not.
    def losses(room: float) -> list[float]:
        return [
            float(sack.loss[list(choices)].sum())
            for choices in everything(sack)
            if (sack.weight[:, list(choices)].sum(1) <= sack.budget + room).all()
        ]

    found = sack.solved(gap=0.0)
    if found is None:
        assert not losses(-1e-6)
        return
    assert sack.group[found.choices].tolist() == np.unique(sack.group).tolist()
    assert (sack.weight[:, found.choices].sum(1) <= sack.budget + 1e-6).all()
    assert found.loss == pytest.approx(sack.loss[found.choices].sum())
    assert found.loss >= min(losses(1e-6)) - 1e-5
    assert found.bound <= found.loss
    if losses(-1e-6):
        best = min(losses(-1e-6))
        assert found.loss <= best + 1e-5
        assert found.bound <= best + 1e-5


@settings(deadline=None, max_examples=40)
@given(sacks())
def test_the_smallest_share_is_that_of_the_fullest_budget(sack: Knapsack) -> None:
    shares = [
        float((sack.weight[:, list(choices)].sum(1) / sack.budget).max())
        for choices in everything(sack)
    ]
    assert sack.smallest() == pytest.approx(min(shares), abs=1e-5)


def test_a_large_one_is_near_its_bound_and_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    units, sizes = 90, np.array([20, 36, 68, 132, 260, 512]) / 512
    loss = np.sort(rng.lognormal(-6, 3, (units, len(sizes))), 1)[:, ::-1]
    loss[:, -1] = 0
    for budget in (0.1, 0.2, 0.3, 0.5):
        sack = Knapsack(
            loss.ravel(), np.arange(units).repeat(len(sizes)), np.tile(sizes, units)[None] / units,
            np.array([budget]),
        )  # fmt: skip
        found = sack.solved()
        assert found is not None
        assert sizes[found.choices % len(sizes)].mean() <= budget + 1e-9
        assert found.loss <= found.bound * (1 + 2e-4)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
