"""Patterns: masks, ranges, density, what is held, JSON, and numbers that are refused."""

import dataclasses
import json
import math
from typing import Any

import pytest
import rules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.catalog import patterns, selectors
from headscope.errors import HeadscopeError
from headscope.patterns import Dilated, Full, Pattern, Sharded, Streaming
from headscope.patterns.rules import rule_of

NAMES = list(patterns())
ALL = {**patterns(), **selectors()}


def seen_from(rule: Pattern, query: int) -> set[int]:
    sees = rules.module(rule).sees
    return {key for key in range(query + 1) if sees(rule, query, key)}


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), start=st.integers(0, 200))
def test_masks_are_what_they_are_defined_to_be(name: str, data: st.DataObject, start: int) -> None:
    rule = data.draw(rules.drawn(name))
    query = torch.arange(start, start + 12)
    mask = rule.mask(query[:, None], torch.arange(start + 12))
    for row, at in zip(mask, query.tolist(), strict=True):
        assert set(row[: at + 1].nonzero()[:, 0].tolist()) == seen_from(rule, at)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), first=st.integers(0, 120), length=st.integers(1, 30))
def test_ranges_hold_what_a_block_of_queries_sees(
    name: str, data: st.DataObject, first: int, length: int
) -> None:
    rule = data.draw(rules.drawn(name))
    last = first + length - 1
    ranges = rule.key_ranges(first, last)
    edges = [edge for part in ranges for edge in part]
    assert edges == sorted(set(edges)), "ascending, disjoint, and never merely touching"
    inside = {key for low, high in ranges for key in range(low, high)}
    seen = set().union(*(seen_from(rule, query) for query in range(first, last + 1)))
    assert seen <= inside <= set(range(last + 1))
    if type(rule).key_ranges is Pattern.key_ranges:
        assert inside == seen


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=20)
@given(data=st.data(), n=st.integers(1, 60))
def test_density_is_counted(name: str, data: st.DataObject, n: int) -> None:
    rule = data.draw(rules.drawn(name))
    kept = sum(len(seen_from(rule, query)) for query in range(n))
    assert rule.density(n) == pytest.approx(kept / (n * (n + 1) / 2), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_density_of_long_texts_is_estimated_from_rows(name: str) -> None:
    rule, n = patterns()[name](), 4500
    keys, kept = torch.arange(n), 0
    for rows in keys.split(500):
        kept += int((rule.mask(rows[:, None], keys) & (keys <= rows[:, None])).sum())
    assert rule.density(n) == pytest.approx(kept / (n * (n + 1) / 2), rel=0.01)
    assert rule.density(0) == 1


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data(), query=st.integers(0, 400))
def test_what_is_not_held_is_never_seen_again(name: str, data: st.DataObject, query: int) -> None:
    """Keys between sink and window, from any query on: a cache may drop them."""
    rule = data.draw(rules.drawn(name))
    held = rule.held()
    if held is None:
        return
    sink, window = held
    assert all(key < sink or key > query - window for key in seen_from(rule, query))


@pytest.mark.parametrize(
    ("rule", "held"),
    [(Streaming(4, 64), (4, 64)), (Dilated(4, 8, 3), (4, 22)), (Dilated(0, 1, 9), (0, 1))],
)
def test_what_is_held_is_all_that_is_needed(rule: Pattern, held: tuple[int, int]) -> None:
    assert rule.held() == held
    assert held[0] + held[1] > len(seen_from(rule, 300)) - 1
    oldest = min(key for key in seen_from(rule, 300) if key >= held[0])
    assert oldest == 300 - held[1] + 1, "a smaller window would lose a key"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"streaming", "dilated"}))
def test_what_sees_far_keys_again_holds_them_all(name: str) -> None:
    assert patterns()[name]().held() is None
    assert Streaming(4, 4, growth=0.1).held() is None


def test_shards_of_all_offsets_are_the_whole_text() -> None:
    query, key = torch.arange(200)[:, None], torch.arange(200)
    shards = torch.stack([Sharded(0, 1, 5, 4, o).mask(query, key) for o in range(4)])
    assert bool(shards.any(0).all())
    far = (query - key).expand(4, 200, 200) > 0
    assert bool((shards.sum(0) == 1)[far[0]].all()), "each key in one shard, but for the window"


def test_windows_that_grow_are_of_each_row_and_stand_still_at_a_length() -> None:
    rule = Streaming(0, 2, growth=0.25)
    assert [len(seen_from(rule, query)) for query in (3, 7, 39)] == [3, 4, 12]
    assert rule.at(40) == Streaming(0, 12)
    for name in sorted(set(NAMES) - {"streaming"}):
        assert patterns()[name]().at(40) == patterns()[name]()


# ---- as data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ALL))
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_rules_survive_json(name: str, data: st.DataObject) -> None:
    rule = data.draw(rules.drawn(name))
    again = rule_of(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    assert hash(again) == hash(rule)
    assert type(again) is ALL[name]
    assert str(again).startswith(name)


@pytest.mark.parametrize("name", list(ALL))
def test_the_numbers_of_every_rule_are_checked(name: str) -> None:
    for field in dataclasses.fields(ALL[name]):
        for wrong in (math.nan, 10**12, -(10**12), math.inf, True, None, "4", [4]):
            with pytest.raises(HeadscopeError, match=r"\.$") as error:
                rule_of({"rule": name, field.name: wrong})
            assert field.name in str(error.value)
        if field.type is int:
            with pytest.raises(HeadscopeError, match="whole number"):
                rule_of({"rule": name, field.name: 4.0})
    with pytest.raises(HeadscopeError, match="has no 'depth'"):
        rule_of({"rule": name, "depth": 4})
    assert rule_of({"rule": name}) == ALL[name]()


# What must be above zero by itself; a window of `Streaming` may be zero only where it grows.
LEAST = [
    (name, field.name)
    for name, kind in ALL.items()
    for field in dataclasses.fields(kind)
    if field.name not in ("sink", "offset", "growth", "tau", "theta", "vertical")
    or (field.name == "tau" and name == "self_similarity")
]


@pytest.mark.parametrize(("name", "field"), LEAST)
def test_nothing_that_has_to_be_is_zero(name: str, field: str) -> None:
    for wrong in (0, -1):
        with pytest.raises(HeadscopeError, match=field):
            rule_of({"rule": name, field: wrong})


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"rule": "sliding"}, "no rule named 'sliding'"),
        ({"sink": 4}, "written as"),
        ({"rule": 4}, "written as"),
        ({"rule": "streaming", "sink": -1}, "sink >= 0"),
        ({"rule": "dilated", "sink": -1}, "sink to be a whole number of at least 0"),
        ({"rule": "sharded", "stride": 4, "offset": 4}, "no offset=4"),
        ({"rule": "block_top_k", "blocks": 1}, "blocks=1"),
        ({"rule": "hierarchical_top_k", "blocks": 2, "sink": 65}, "2 of the sink"),
        ({"rule": "vertical_slash", "vertical": 29}, "vertical=29"),
        ({"rule": "vertical_slash", "slash": 99}, "below window=100"),
        ({"rule": "flex_prefill", "gamma": 1.5}, "at most 1"),
        ({"rule": "flex_prefill", "tau": -0.1}, "tau from 0 to 1"),
        ({"rule": "self_similarity", "theta": 2}, "theta from -1 to 1"),
    ],
)
def test_rules_that_cannot_be_are_refused(numbers: dict[str, Any], says: str) -> None:
    with pytest.raises(HeadscopeError, match=says):
        rule_of(numbers)


def test_full_sees_everything() -> None:
    assert Full().density(9) == 1
    assert Full().key_ranges(3, 5) == [(0, 6)]
