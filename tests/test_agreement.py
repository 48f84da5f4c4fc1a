"""Do scores say the same: rank correlation, overlap, and what chance would give."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from made_up import a_map, noisy, with_values

from headscope.agreement import chance_of, places_in_top
from headscope.cli.base import print_json
from headscope.errors import HeadscopeError


def test_rank_correlation_and_overlap_of_every_pair() -> None:
    head_map = a_map(4, 6, 2, ["retrieval", "sink", "induction"])
    found = head_map.agreement(5)
    assert len(found.pairs) == 3
    for row in found.pairs.to_dict("records"):
        means = [head_map[row[which]].mean().ravel() for which in ("first", "second")]
        ranks = [pd.Series(each).rank() for each in means]
        assert row["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
        best = [set(np.argsort(-each)[:5].tolist()) for each in means]
        assert row["overlap"] == pytest.approx(len(best[0] & best[1]))
        assert row["p"] == pytest.approx(chance_of(round(row["overlap"]), 5, 24))
        assert found.spearman.loc[row["second"], row["first"]] == row["spearman"]
    assert found.chance == pytest.approx(25 / 24)
    assert np.allclose(np.diag(found.spearman), 1)


@pytest.mark.parametrize(("k", "n"), [(1, 4), (2, 5), (3, 6), (6, 6)])
def test_chance_is_counted_out(k: int, n: int) -> None:
    fixed = set(range(k))
    shared = [len(fixed & set(other)) for other in itertools.combinations(range(n), k)]
    assert np.mean(shared) == pytest.approx(k * k / n)
    for overlap in range(k + 1):
        assert chance_of(overlap, k, n) == pytest.approx(np.mean(np.array(shared) >= overlap))


def test_equal_heads_share_the_places_that_are_left() -> None:
    assert places_in_top(np.array([3.0, 1, 1, 1, 0]), 2).tolist() == pytest.approx(
        [1, 1 / 3, 1 / 3, 1 / 3, 0]
    )
    zeros = [0.9] + [0.0] * 7
    head_map = with_values({"a": noisy(*zeros, noise=0), "b": noisy(*zeros[::-1], noise=0)})
    (row,) = head_map.agreement(3).pairs.to_dict("records")
    assert row["overlap"] == pytest.approx(2 * 2 / 7 + 6 * (2 / 7) ** 2)
    assert row["p"] == pytest.approx(chance_of(1, 3, 8))


def test_a_constant_score_is_said_and_leaves_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"a": noisy(1, 2, 3), "b": noisy(3, 1, 2), "same": noisy(1, 1, 1, noise=0)}
    found = with_values(values).agreement(2)
    assert found.constant == ("same",)
    notes = found.pairs.set_index(["first", "second"])["note"]
    assert notes.tolist() == ["", "constant: same", "constant: same"]
    print_json(found.pairs.to_dict("records"))
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert rows[1]["spearman"] is None
    assert "Constant, equal on all heads: same." in str(found)
    flat = with_values({"a": noisy(1, 1, noise=0), "b": noisy(2, 2, noise=0)}).agreement(1)
    assert flat.constant == ("a", "b")
    assert str(flat).count("constant") == 2


def test_the_closest_score_is_one_of_another_probe() -> None:
    rising = np.linspace(0, 1, 8)
    values = {
        "sink": noisy(*rising),
        "sink_rate": noisy(*rising),
        "streaming": noisy(*rising[::-1]),
        "retrieval": noisy(*np.roll(rising, 3)),
    }
    made = with_values(values)
    made.info.scores["sink_rate"].probe = "sink"
    found = made.agreement(2)
    closest = found.closest().set_index("score")
    assert closest.loc["sink", "closest"] == "streaming"
    assert closest.loc["sink", "spearman"] == pytest.approx(-1)
    beside = found.beside("sink")
    assert beside["score"].tolist() == ["sink_rate", "retrieval", "streaming"]
    with pytest.raises(HeadscopeError, match="no score 'x'"):
        found.beside("x")


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="two scores at least"):
        a_map(scores=["sink"]).agreement()
    with pytest.raises(HeadscopeError, match="at least one head"):
        a_map().agreement(0)
    assert a_map(1, 2, 2, ["sink", "retrieval"]).agreement(10).k == 2
