"""Heads that score alike, found without a rule."""

import dataclasses

import numpy as np
import pytest
from made_up import a_map, noisy, with_values

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap


def three_kinds() -> HeadMap:
    """Eighteen heads: ten sinks, five retrieval heads, three of neither, and a constant score."""
    kind = np.repeat([0, 1, 2], [10, 5, 3])
    near = np.random.default_rng(0).normal(0, 0.02, (3, 18))
    values = {
        "sink": np.where(kind == 0, 0.9, 0.1) + near[0],
        "retrieval": np.where(kind == 1, 0.8, 0.05) + near[1],
        "streaming": np.where(kind == 2, 0.2, 0.8) + near[2],
        "sink_rate": np.ones(18),
    }
    spread = {name: noisy(*mean, noise=0) for name, mean in values.items()}
    return with_values({name: each.reshape(12, 3, 6) for name, each in spread.items()})


def test_planted_kinds_are_found_and_described() -> None:
    found = three_kinds().clusters()
    assert found.k == 3
    assert found.silhouette > 0.8
    assert found.table["cluster"].tolist() == [0] * 10 + [1] * 5 + [2] * 3
    assert found.described["heads"].tolist() == [10, 5, 3]
    first = [text.split(" ")[0] for text in found.described["strongest"]]
    assert first == ["sink", "retrieval", "streaming"]
    assert found.constant == ("sink_rate",)
    assert found.tried.set_index("k")["silhouette"].idxmax() == 3
    assert sum(found.explained) == pytest.approx(1)
    assert "sink_rate" in str(found)
    assert max(map(len, str(found).splitlines())) <= 100


def test_means_are_those_of_standardised_scores() -> None:
    head_map = three_kinds()
    found = head_map.clusters(2)
    assert found.k == 2
    for name in ("sink", "retrieval", "streaming"):
        mean = head_map[name].mean().ravel()
        z = (mean - mean.mean()) / mean.std()
        for cluster in range(2):
            members = found.table["cluster"].to_numpy() == cluster
            assert found.z.loc[cluster, name] == pytest.approx(z[members].mean())


def test_the_same_map_gives_the_same_clusters() -> None:
    first, second = (a_map(8, 8, 2).clusters() for _ in range(2))
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert one.equals(other) if hasattr(one, "equals") else one == other


def test_what_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="two scores and three heads"):
        a_map(scores=["sink"]).clusters()
    with pytest.raises(HeadscopeError, match="two scores and three heads"):
        a_map(1, 2, 2).clusters()
    with pytest.raises(HeadscopeError, match="two scores and three heads"):
        with_values({"sink": noisy(1, 1, 1, noise=0)}).clusters()
    for k in (1, 18):
        with pytest.raises(HeadscopeError, match="from 2 to 17"):
            three_kinds().clusters(k)


def test_heads_that_are_nearly_all_equal() -> None:
    """Most heads of a model may score exactly 0."""
    values = [0.0] * 20 + [0.5, 0.7]
    found = with_values({"a": noisy(*values, noise=0), "b": noisy(*values[::-1], noise=0)})
    assert found.clusters().k in (2, 3, 4)
