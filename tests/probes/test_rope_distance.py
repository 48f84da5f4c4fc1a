"""The trend that two probes are made of, and prompts that they refuse."""

import pytest
import torch
from scipy.stats import linregress, spearmanr

from headscope.errors import HeadscopeError
from headscope.probes.causal_mask_bias import CausalMaskBias
from headscope.probes.rope_distance import RopeDistance
from headscope.probes.trends import ranks, trend
from headscope.prompts import Prompt


def test_a_trend_is_that_of_the_points_that_count() -> None:
    x, y = torch.randn(20, 9), torch.randn(20, 9).round()
    counts = torch.rand(20, 9) < 0.7
    found, ranked = trend(x, y, counts), trend(ranks(x, counts), ranks(y, counts), counts)
    for i in range(20):
        some = counts[i]
        a, b = x[i][some].tolist(), y[i][some].tolist()
        if len(a) < 3 or len(set(b)) == 1:
            assert float(found.correlation[i]) == float(ranked.correlation[i]) == 0
            continue
        line = linregress(a, b)
        assert float(found.slope[i]) == pytest.approx(line[0], abs=1e-4)
        assert float(found.correlation[i]) == pytest.approx(line[2], abs=1e-4)
        assert float(ranked.correlation[i]) == pytest.approx(spearmanr(a, b)[0], abs=1e-4)


def test_two_points_and_flat_lines_have_no_trend() -> None:
    x = torch.arange(4.0)
    for y, counts in ((x, x < 2), (torch.ones(4), x < 4), (x, x < 0)):
        assert [float(part) for part in trend(x, y, counts)] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (RopeDistance(), "longer prompts"),
        (RopeDistance(nearest=1, runs=9), "between 1 and 8"),
        (CausalMaskBias(turns=16), "fewer turns"),
    ],
)
def test_prompts_that_are_too_short_are_refused(
    probe: RopeDistance | CausalMaskBias, said: str
) -> None:
    with pytest.raises(HeadscopeError, match=f"'{probe.name}'.*{said}"):
        probe.check(Prompt(tuple(range(16))))
