"""What two maps have in common when their scores hold ties."""

from typing import Any

import numpy as np
import pytest
from made_up import a_map

from headscope import HeadMap
from headscope.agreement import places_in_top
from headscope.compare import compare
from headscope.errors import HeadscopeError
from headscope.headmap import Scores


def of(*heads: int, rest: float = 0.0) -> HeadMap:
    """18 heads, of which some score 1, 2, ... and all others the same."""
    values = np.full(18, rest, np.float32)
    values[list(heads)] += np.arange(1, len(heads) + 1)
    made = a_map(layers=3, scores=["sink"])
    return HeadMap(made.info, {"sink": Scores(values.reshape(1, 3, 6), "max")})


def row(one: HeadMap, other: HeadMap, k: int = 10) -> dict[str, Any]:
    (found,) = compare(one, other, k).table.to_dict("records")
    return found


def test_ties_are_no_agreement() -> None:
    found = row(of(3), of(11))
    assert found["overlap"] == pytest.approx(found["chance"], abs=0.1)
    assert found["note"] == "ties: only 1 and 1 heads have a place in the top 10 of their own"


def test_heads_above_the_ties_count_whole() -> None:
    same, other = row(of(3, 4, 5), of(3, 4, 5)), row(of(3, 4, 5), of(3, 4, 6))
    assert same["overlap"] == pytest.approx(3 + 7 * 7 / 15)
    assert 2 < other["overlap"] < same["overlap"]
    assert row(of(3, 4, 5), of(3, 4, 5), k=3) == {
        "score": "sink", "spearman": pytest.approx(1), "overlap": 3, "k": 3, "chance": 0.5,
        "note": "",
    }  # fmt: skip


def test_constant_scores_are_said_to_be() -> None:
    for one, other, note in (
        (of(), of(3), "constant in the first"),
        (of(3), of(rest=0.5), "constant in the second"),
        (of(), of(), "constant in the first and the second"),
    ):
        found = row(one, other)
        assert found["note"] == note
        assert np.isnan([found["overlap"], found["spearman"]]).all()


def test_random_ties_overlap_as_chance_has_it() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 5, 10, 18):
        draws = rng.integers(0, 3, (400, 2, 18)).astype(float)
        places = np.array([[places_in_top(values, k) for values in pair] for pair in draws])
        assert np.allclose(places.sum(-1), k)
        assert (places[:, 0] * places[:, 1]).sum(-1).mean() == pytest.approx(k * k / 18, rel=0.1)


def test_k_is_positive() -> None:
    with pytest.raises(HeadscopeError, match="at least one head"):
        compare(of(3), of(3), 0)
