"""Control sets that are alike in what the tested heads write."""

import numpy as np
import pytest

from headscope.errors import HeadscopeError
from headscope.evals.controls import check_layer_matched, norm_matched_sets, uniform_sets
from headscope.heads import Head

HEADS: list[Head] = [(layer, head) for layer in range(10) for head in range(9)]
NORMS = dict(zip(HEADS, np.random.default_rng(0).lognormal(0, 1, len(HEADS)).tolist(), strict=True))


@pytest.mark.parametrize("k", [1, 3, 8])
def test_norm_matched_sets_are_sets_of_other_heads(k: int) -> None:
    tested = HEADS[5 : 5 + k]
    sets = norm_matched_sets(HEADS, tested, NORMS, 30, seed=1)
    assert len(set(sets)) == len(sets) == 30
    for drawn in sets:
        assert len(set(drawn)) == k
        assert not set(drawn) & set(tested)
        assert list(drawn) == sorted(drawn)
    assert sets == norm_matched_sets(HEADS, tested, NORMS, 30, seed=1)
    assert sets != norm_matched_sets(HEADS, tested, NORMS, 30, seed=2)


@pytest.mark.parametrize("where", ["least", "middle", "most"])
def test_norm_matched_sets_are_closer_than_uniform_ones(where: str) -> None:
    ranked = sorted(HEADS, key=NORMS.__getitem__)
    tested = {"least": ranked[:5], "middle": ranked[40:50:2], "most": ranked[-5:]}[where]

    def apart(sets: list[tuple[Head, ...]]) -> float:
        """Mean distance of the sorted logarithms of norms."""
        logs = np.log([sorted(NORMS[head] for head in drawn) for drawn in sets])
        return float(np.abs(logs - np.log(sorted(NORMS[head] for head in tested))).mean())

    matched = apart(norm_matched_sets(HEADS, tested, NORMS, 50))
    assert matched < 0.6 * apart(uniform_sets(HEADS, tested, 50))


def test_norm_matched_sets_where_few_exist() -> None:
    few = HEADS[:6]
    assert len(norm_matched_sets(few, few[:2], NORMS, 99)) == 6  # 2 of 4
    assert len(norm_matched_sets(few, few[:1], NORMS, 99)) == 5
    assert norm_matched_sets(few, few[:4], NORMS, 99) == []
    assert norm_matched_sets(few, few[:1], NORMS, 0) == []
    # Half of all heads: twice as many as are tested is more than there are.
    assert len(norm_matched_sets(HEADS, HEADS[:43], NORMS, 19)) == 19
    assert norm_matched_sets(HEADS, HEADS[:45], NORMS, 19) == [tuple(HEADS[45:])]


def test_a_head_that_writes_nothing_is_matched_by_those_that_write_least() -> None:
    norms = NORMS | {HEADS[3]: 0.0}
    least = sorted(HEADS, key=norms.__getitem__)[1:11]
    sets = norm_matched_sets(HEADS, [HEADS[3]], norms, 10)
    assert sorted(head for (head,) in sets) == sorted(least)


def test_layers_without_enough_other_heads_are_refused() -> None:
    check_layer_matched(HEADS, [(3, head) for head in range(4)])
    with pytest.raises(HeadscopeError, match=r"Layer 3 has 9 heads and 5 .* 4 are left where 5"):
        check_layer_matched(HEADS, [(0, 1), *((3, head) for head in range(5))])
