"""Intervals that cover, and p-values that are what they say.

`benchmarks/coverage.py` asks the same of more experiments; those here are few, so that the bounds
are what a right interval keeps to in 999 of 1000 runs.
"""

from collections.abc import Callable
from inspect import unwrap
from itertools import product
from math import comb, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headscope.errors import HeadscopeError
from headscope.evals.bootstrap import smoothed
from headscope.evals.statistics import (
    Interval,
    benjamini_hochberg,
    check_enough,
    holm,
    least_prompts,
    paired_bootstrap,
    paired_proportions,
    sign_flip_p,
    two_sample_bootstrap,
    two_way_bootstrap,
    wilson,
)
from headscope.evals.two_way import _counts, _layout

Rng = np.random.Generator
SHAPES: dict[str, tuple[Callable[[Rng, int], np.ndarray], float]] = {
    "normal": (lambda rng, n: rng.normal(1, 2, n), 1),
    "lognormal": (lambda rng, n: rng.lognormal(0, 0.5, n), float(np.exp(0.125))),
    "exponential": (lambda rng, n: -rng.exponential(1, n), -1),
    "exact match": (lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.4, 0.5, 0.1]), -0.3),
}


def covers(once: Callable[[Rng], tuple[Interval, float]], count: int = 400) -> float:
    rng = np.random.default_rng(7)
    found = [once(rng) for _ in range(count)]
    return float(np.mean([low <= truth <= high for (low, high), truth in found]))


@pytest.mark.parametrize("n", [12, 24, 48])
@pytest.mark.parametrize("shape", SHAPES)
def test_paired_bootstrap_covers(shape: str, n: int) -> None:
    draw, truth = SHAPES[shape]
    share = covers(lambda rng: (paired_bootstrap(draw(rng, n), resamples=1000), truth))
    assert 0.91 <= share <= 0.985


def test_paired_bootstrap_covers_where_the_percentile_does_not() -> None:
    draw, truth = SHAPES["exponential"]

    def percentile(x: np.ndarray) -> Interval:
        drawn = x[np.random.default_rng(0).integers(len(x), size=(1000, len(x)))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return float(low), float(high)

    ours = covers(lambda rng: (paired_bootstrap(draw(rng, 12), resamples=1000), truth))
    plain = covers(lambda rng: (percentile(draw(rng, 12)), truth))
    assert plain < 0.9 < ours - 0.02


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_other_confidences_are_kept_too(confidence: float) -> None:
    share = covers(
        lambda rng: (paired_bootstrap(rng.normal(0, 1, 16), 0, confidence, 1000), 0), count=600
    )
    low, high = wilson(round(600 * confidence), 600, 0.999)
    assert low <= share <= high


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=2, max_size=12),
    st.floats(0.01, 100),
    st.floats(-100, 100),
)
def test_intervals_move_and_stretch_with_the_differences(
    values: list[float], scale: float, shift: float
) -> None:
    x = np.array(values)
    low, high = paired_bootstrap(x, resamples=200)
    assert np.isfinite([low, high]).all()
    assert low <= high
    moved = paired_bootstrap(x * scale + shift, resamples=200)
    assert moved == pytest.approx((low * scale + shift, high * scale + shift), abs=1e-6 * scale)


def test_intervals_of_what_does_not_vary_or_cannot_be_known() -> None:
    assert paired_bootstrap(np.full(12, 0.1)) == (0.1, 0.1)
    assert all(map(isnan, paired_bootstrap(np.array([3.0]))))
    low, high = paired_bootstrap(np.array([0.0, 1.0]))
    assert low < -1  # two prompts say next to nothing
    assert high > 2
    x = np.random.default_rng(0).normal(size=24)
    assert paired_bootstrap(x, 1) == paired_bootstrap(x, 1) != paired_bootstrap(x, 2)
    assert paired_bootstrap(x, 1) == pytest.approx(paired_bootstrap(x, 2), abs=0.02)


def test_senseless_differences_are_refused() -> None:
    with pytest.raises(HeadscopeError, match="at least two prompts"):
        paired_bootstrap(np.array([]))
    with pytest.raises(HeadscopeError, match="1 of 3 values are not finite"):
        paired_bootstrap(np.array([1.0, -np.inf, 2.0]))
    with pytest.raises(HeadscopeError, match="between 0 and 1"):
        paired_bootstrap(np.zeros(8), confidence=95.0)


def test_noise_that_is_not_drawn_is_as_if_it_were() -> None:
    rng, n, error, count = np.random.default_rng(0), 5, 0.3, 20_000
    sample = np.array([0.0, 0.0, 1.0, 1.0, 4.0])
    squares = np.full(count, ((sample - sample.mean()) ** 2).sum())
    means, errors = smoothed(np.full(count, sample.mean()), squares, error, n, rng)
    drawn = sample + np.sqrt(error) * rng.normal(size=(count, n))
    for ours, theirs in (
        (means, drawn.mean(1)),
        (errors, drawn.var(1, ddof=1) / n),
        (means / np.sqrt(errors), drawn.mean(1) / np.sqrt(drawn.var(1, ddof=1) / n)),
    ):
        assert stats.ks_2samp(ours, theirs).pvalue > 0.01


# ---- two samples -------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(24, 24), (12, 36)])
def test_two_sample_bootstrap_covers(sizes: tuple[int, int]) -> None:
    def once(rng: Rng) -> tuple[Interval, float]:
        a, b = rng.normal(1, 1, sizes[0]), rng.lognormal(0, 0.5, sizes[1])
        return two_sample_bootstrap(a, b, resamples=1000), 1 - float(np.exp(0.125))

    assert 0.91 <= covers(once) <= 0.985


def test_two_samples_of_which_one_does_not_vary() -> None:
    x = np.random.default_rng(0).normal(size=24)
    alone = paired_bootstrap(x)
    assert two_sample_bootstrap(x, np.full(9, 2.0)) == pytest.approx(
        (alone[0] - 2, alone[1] - 2), abs=0.02
    )
    assert two_sample_bootstrap(np.full(9, 2.0), np.full(7, 0.5)) == (1.5, 1.5)
    assert all(map(isnan, two_sample_bootstrap(x, np.array([1.0]))))


# ---- prompts and sets --------------------------------------------------------------------------


def test_layouts_are_those_of_the_tables_that_are_not_made() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 6))
    sets, prompts = _counts(4, rng, 5), _counts(6, rng, 5)
    assert (sets.sum(1) == 4).all()
    assert (prompts.sum(1) == 6).all()
    found = _layout(table, sets, prompts)
    for i in range(5):
        made = np.repeat(np.repeat(table, sets[i].astype(int), 0), prompts[i].astype(int), 1)
        rows, columns = made.mean(1), made.mean(0)
        rest = made - rows[:, None] - columns + made.mean()
        assert found.means[i] == pytest.approx(made.mean())
        assert found.sets[i] == pytest.approx(rows.var(ddof=1) / 4)
        assert found.prompts[i] == pytest.approx(columns.var(ddof=1) / 6)
        assert found.rest[i] == pytest.approx((rest**2).sum() / (3 * 5) / (4 * 6), abs=1e-12)


@pytest.mark.parametrize("sets", [19, 99])
@pytest.mark.parametrize("spread", [(1.0, 0.3, 1.0), (0.5, 0.5, 0.5), (0.3, 1.0, 0.3)])
def test_two_way_bootstrap_covers(spread: tuple[float, float, float], sets: int) -> None:
    def once(rng: Rng) -> tuple[Interval, float]:
        tested = 2 + spread[0] * rng.normal(size=24)
        of_sets = spread[1] * rng.normal(size=(sets, 1))
        controls = 0.5 + of_sets + spread[2] * rng.normal(size=(sets, 24))
        return two_way_bootstrap(tested, controls, resamples=500), 1.5

    assert 0.91 <= covers(once) <= 0.985


def test_sets_that_differ_widen_the_interval_and_sets_that_do_nothing_leave_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=24)
    alone = paired_bootstrap(x)
    assert two_way_bootstrap(x, np.zeros((19, 24))) == pytest.approx(alone, abs=0.05)
    unlike = np.tile(rng.normal(size=(19, 1)), 24)
    low, high = two_way_bootstrap(x, unlike - unlike.mean())
    assert low < alone[0] - 0.05
    assert high > alone[1] + 0.05


def test_two_way_bootstraps_at_the_edge() -> None:
    x = np.ones(6)
    assert two_way_bootstrap(x * 0.3, np.full((5, 6), 0.1)) == pytest.approx((0.2, 0.2))
    assert all(map(isnan, two_way_bootstrap(x, np.zeros((1, 6)))))
    assert all(map(isnan, two_way_bootstrap(x[:1], np.zeros((5, 1)))))
    # No mean of a set or of a prompt differs from another, and all is in the rest.
    low, high = two_way_bootstrap(np.zeros(2), np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert low < -1
    assert high > 1
    unchecked = unwrap(two_way_bootstrap)  # as users have it, without the check of shapes
    with pytest.raises(HeadscopeError, match="on 6 prompts and the controls on 4"):
        unchecked(x, np.zeros((19, 4)))
    with pytest.raises(HeadscopeError, match="nothing has no interval"):
        two_way_bootstrap(x, np.zeros((0, 6)))


# ---- how many prompts, and proportions ---------------------------------------------------------


def test_fewest_prompts() -> None:
    for confidence, least in ((0.5, 2), (0.75, 3), (0.9, 5), (0.95, 6), (0.99, 8)):
        assert least_prompts(confidence) == least
        assert 2 * 0.5**least <= 1 - confidence + 1e-12 < 2 * 0.5 ** (least - 1)
    check_enough(6)
    with pytest.raises(
        HeadscopeError, match=r"A 95 % .* at least 6 prompts, and there are 3; give"
    ):
        check_enough(3)
    with pytest.raises(HeadscopeError, match=r"A 90 % .* at least 5 prompts, and there is 1; give"):
        check_enough(1, 0.9)


@pytest.mark.parametrize("n", [12, 24])
def test_paired_proportions_cover_whatever_the_truth(n: int) -> None:
    """Exactly: over all outcomes, at every truth of a grid."""
    cells = [(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)]
    intervals = [
        paired_proportions(np.repeat([-1.0, 1.0, 0.0], [lost, gained, n - lost - gained]))
        for lost, gained in cells
    ]
    lows, highs = np.array(intervals).T
    assert (lows >= -1).all()
    assert (highs <= 1).all()
    ways = np.array([float(comb(n, a) * comb(n - a, b)) for a, b in cells])
    lost, gained = np.array(cells).T
    found = []
    for p, q in product(np.linspace(0, 1, 26), repeat=2):
        if p + q <= 1:
            odds = ways * p**lost * q**gained * max(1 - p - q, 0) ** (n - lost - gained)
            found.append(odds[(lows - 1e-9 <= q - p) & (q - p <= highs + 1e-9)].sum())
    assert min(found) >= 0.916
    assert 0.95 <= np.mean(found) <= 0.98


def test_proportions_have_a_width_where_nothing_changed() -> None:
    low, high = paired_proportions(np.zeros(24))
    assert (low, high) == pytest.approx((-0.107, 0.107), abs=5e-4)
    with pytest.raises(HeadscopeError, match="use paired_bootstrap"):
        paired_proportions(np.array([0.5, 0.0]))


# ---- p-values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_sign_flips_are_all_tried(n: int) -> None:
    x = np.random.default_rng(n).normal(0.4, 1, n)
    sums = [abs(np.dot(signs, x)) for signs in product([-1, 1], repeat=n)]
    assert sign_flip_p(x) == pytest.approx(np.mean(np.array(sums) >= abs(x.sum()) - 1e-12))
    assert sign_flip_p(np.abs(x)) == pytest.approx(2 * 0.5**n)


def test_sign_flips_that_are_drawn_agree_with_all() -> None:
    x = np.random.default_rng(0).normal(0.7, 1, 16)
    flips = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    every = np.mean(np.abs(x.sum() - 2 * flips @ x) >= abs(x.sum()) - 1e-12)
    assert 0.01 < every < 0.5
    assert sign_flip_p(x) == pytest.approx(every, abs=0.015)
    assert sign_flip_p(x, 1) == sign_flip_p(x, 1) != sign_flip_p(x, 2)
    assert sign_flip_p(np.full(60, 2.0)) == pytest.approx(1 / 10_001)


def test_sign_flips_know_ties_from_rounding() -> None:
    assert sign_flip_p(np.zeros(8)) == 1
    # 0.1 + 0.2 - 0.3 is as far from 0 as -0.1 - 0.2 + 0.3, whatever the last bit says.
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1
    assert sign_flip_p(np.array([1.0, 1.0, 1.0, -1.0])) == pytest.approx(10 / 16)


P_VALUES = st.lists(st.floats(0, 1), max_size=30).map(lambda values: np.array(values, float))


@given(P_VALUES)
def test_benjamini_hochberg_equals_scipy(p: np.ndarray) -> None:
    want = stats.false_discovery_control(p) if len(p) else p
    np.testing.assert_allclose(benjamini_hochberg(p), want, atol=1e-12)


@given(P_VALUES, st.floats(0.001, 0.999))
def test_holm_rejects_step_by_step(p: np.ndarray, level: float) -> None:
    rejected = set()
    for step, at in enumerate(np.argsort(p, kind="stable")):
        if p[at] * (len(p) - step) > level:
            break
        rejected.add(int(at))
    assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected


@given(P_VALUES, st.integers(0, 99))
def test_adjusted_values_keep_order_and_bounds(p: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(p))
    for adjust in (benjamini_hochberg, holm):
        adjusted = adjust(p)
        assert (adjusted >= p).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
        np.testing.assert_array_equal(adjust(p[order]), adjusted[order])
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.2])
def test_what_is_no_p_value_is_refused(wrong: float) -> None:
    for adjust in (benjamini_hochberg, holm):
        with pytest.raises(HeadscopeError, match="1 of 3 do not"):
            adjust(np.array([0.5, wrong, 0.1]))
