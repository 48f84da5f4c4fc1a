"""Rules of spans by counting, and plans beside all that there could be."""

import itertools

import numpy as np
import pytest
from torch.testing import assert_close

from headscope.probes.elastic import Rules, plan


def test_rules_cut_spans_and_count_pairs() -> None:
    rules = Rules((20, 40), 4, 3)
    assert len({tuple(row) for row in rules.spans.tolist()}) == len(rules.grid)
    assert rules.spans.min() == 0
    assert rules.spans.max(0).tolist() == [5, 10]
    i, j = np.arange(40)[:, None], np.arange(40)
    influence = np.random.default_rng(0).random((2, 10))
    lost = rules.lost([influence[:, :5], influence])
    for at, ((alpha, beta), spans) in enumerate(zip(rules.grid, rules.spans, strict=True)):
        for place, n in enumerate(rules.lengths):
            span = 4 * min(max(round((alpha + beta * n) / 4), 0), n // 4)
            assert spans[place] == span // 4
            kept = ((j <= i) & ((i - j < span) | (j < 3)))[:n, :n]
            assert_close(rules.density[at, place], kept.sum() / (n * (n + 1) / 2))
            assert_close(lost[0, at, place], influence[0, span // 4 : -(-n // 4)].sum())


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_a_plan_loses_no_more_than_the_best_of_all(limit: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    density = np.sort(rng.random((4, 2)), 0)
    density[0] = 0.05
    lost = np.sort(rng.random((2, 3, 4, 2)) ** 4, 2)[:, :, ::-1]
    budget = 0.45
    best = np.inf
    layers = [x for x in itertools.product(range(4), repeat=3) if len(set(x)) <= limit]
    for one, other in itertools.product(layers, layers):
        rules = np.array([one, other])
        if (density[rules].mean((0, 1)) <= budget + 1e-12).all():
            at = np.take_along_axis(lost.sum(-1), rules[..., None], 2)
            best = min(best, float(at.sum()))
    found = plan(lost, density, budget, limit)
    assert (density[found.rules].mean((0, 1)) <= budget + 1e-9).all()
    assert all(len(set(row)) <= limit for row in found.rules.tolist())
    assert found.bound <= best + 1e-9
    assert found.lost >= best - 1e-9
    # With two layers the choices of a linear programme are few; more make this gap smaller.
    assert found.lost <= best + 0.1 * (lost.sum(-1)[:, :, 0].sum() - best)


def test_a_plan_of_a_whole_model_is_near_its_bound() -> None:
    rng, rules = np.random.default_rng(0), Rules((256, 512, 1024), 32, 32)
    reach = rng.uniform(0.02, 1.5, (72, 1))
    influence = [rng.lognormal(0, 2, (72, 1)) * np.exp(-reach * np.arange(n)) for n in (8, 16, 32)]
    lost = rules.lost([each / each.sum() for each in influence]).reshape(24, 3, -1, 3)
    found = plan(lost, rules.density, 0.5)
    assert (rules.density[found.rules].mean((0, 1)) <= 0.5 + 1e-6).all()
    assert found.bound <= found.lost <= 1.03 * found.bound
    assert plan(lost, rules.density, 1.0).lost < 1e-9


def test_without_any_influence_nothing_is_kept() -> None:
    rules = Rules((40, 80), 4, 4)
    found = plan(np.zeros((2, 3, len(rules.grid), 2)), rules.density, 0.5)
    assert found.lost == found.bound == 0
    with pytest.raises(ValueError, match="do not fit"):
        plan(np.zeros((2, 3, len(rules.grid), 2)), rules.density, 0.01)
