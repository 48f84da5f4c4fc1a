"""From scores to roles: rules, their confidence over prompts, and the evidence that is kept."""

import dataclasses
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up import a_map, noisy, with_values

from headscope.catalog import probes
from headscope.errors import HeadscopeError
from headscope.roles import RULES
from headscope.rules import Measured, Quantile, Rule, Threshold
from headscope.scores import Scores


def passing(condition: Threshold | Quantile, values: np.ndarray, kv_heads: int) -> np.ndarray:
    return condition.passes(Measured(values, kv_heads, "max"))


def test_every_rule_can_be_measured_and_says_where_it_comes_from() -> None:
    """A score that is renamed would silently take its role away."""
    known = {score for probe in probes().values() for score in probe.score_names()}
    for role, rule in RULES.items():
        assert set(rule.scores) <= known, role
        assert rule.source
        assert rule.kind in ("threshold", "quantile")
        assert "," not in role
    assert {"retrieval", "streaming", "sink", "positional", "contextual", "basin"} <= {*RULES}


@pytest.mark.parametrize(
    ("sign", "expected"), [(">", [0, 0, 1]), (">=", [0, 1, 1]), ("<", [1, 0, 0]), ("<=", [1, 1, 0])]
)
def test_a_threshold(sign: str, expected: list[int]) -> None:
    rule = Threshold("x", sign, 0.5)  # pyright: ignore[reportArgumentType]
    assert passing(rule, np.array([[0.4, 0.5, 0.6]]), 3).tolist() == [[bool(x) for x in expected]]
    assert rule.below == ("<" in sign)


@pytest.mark.parametrize("of", ["heads", "KV heads"])
@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("wanted", [{"share": 0.3}, {"count": 3}, {"count": 1}, {"share": 0.5}])
def test_a_quantile_takes_the_first_of_a_ranking(of: str, lowest: bool, wanted: dict) -> None:
    values = np.random.default_rng(0).normal(size=(5, 4, 6))
    rule = Quantile("x", **wanted, lowest=lowest, of=of)
    for one, found in zip(values, passing(rule, values, 2), strict=True):
        units = {}
        for layer in range(4):
            for head in range(6):
                unit = (layer, head // 3 if of == "KV heads" else head)
                units[unit] = max(units.get(unit, -math.inf), one[layer, head])
        order = sorted(units, key=lambda unit: units[unit] if lowest else -units[unit])
        k = wanted.get("count") or round(wanted["share"] * len(units))
        chosen = order[: min(k, len(units) // 2)]
        for layer in range(4):
            for head in range(6):
                unit = (layer, head // 3 if of == "KV heads" else head)
                assert found[layer, head] == (unit in chosen)
        cut = rule.cut(Measured(one, 2, "max"))
        assert cut == units[chosen[-1]]


def test_equal_heads_are_not_told_apart_by_their_numbers() -> None:
    rule = Quantile("x", count=3)
    tied = np.array([[5.0, 4.0, 3.0, 3.0, 1.0, 0.0, 0.0, 0.0]])
    assert passing(rule, tied, 8).tolist() == [[True, True] + [False] * 6]
    for nothing in (np.zeros((2, 4)), np.ones((1, 1))):
        assert not passing(rule, nothing, nothing.shape[1]).any()
        assert rule.cut(Measured(nothing, nothing.shape[1], "max")) is None
    with pytest.raises(ValueError, match="a share or a count"):
        Quantile("x")


def test_two_conditions_are_joined() -> None:
    both = Rule(Threshold("x", ">", 0.8), "mine", Threshold("y", ">=", 0.05))
    far = with_values({"x": noisy(0.9, 0.9, 0.5), "y": noisy(0.5, 0.0, 0.5)})
    assert far.decision(both).passes.tolist() == [[True, False, False]]
    assert str(both) == "x > 0.8 and y ≥ 0.05"
    either = Rule(Threshold("x", ">", 0.5), "mine", Quantile("y", count=1), "or")
    joined = with_values({"x": noisy(0.9, 0.1, 0.1), "y": noisy(0, 0.2, 0.9)})
    assert joined.decision(either).passes.tolist() == [[True, False, True]]
    assert (either.kind, either.scores) == ("quantile", ("x", "y"))
    with pytest.raises(HeadscopeError, match="no score 'y'"):
        with_values({"x": noisy(0.9, 0.1)}).decision(both)


def test_positional_is_a_rank_and_offset_a_threshold() -> None:
    assert not any("rope_distance" in rule.scores for rule in RULES.values())
    assert "headscope's own" in RULES["positional"].source
    head_map = with_values({"offset": noisy(0.9, *(0.02 * i for i in range(19)))})
    assert head_map.decision(RULES["positional"]).passes.sum() == 2
    roles = head_map.roles().set_index("name")
    assert roles.loc["L0H0", "roles"] == "offset,positional"
    assert roles.loc["L0H19", "roles"] == "positional"


def test_razor_retrieval_selects_whole_groups() -> None:
    induction = np.zeros((4, 5, 8)) + np.linspace(0, 0.1, 40).reshape(5, 8)
    echo = induction[:, ::-1] * 0.5
    induction[:, 2, 5] = echo[:, 3, 0] = 0.9
    head_map = with_values({"razor_induction": induction, "echo": echo}, kv_heads=4)
    found = head_map.decision(RULES["razor_retrieval"]).passes
    assert found[2, 4:6].all()
    assert found[3, :2].all()
    assert (found[:, ::2] == found[:, 1::2]).all()
    assert found.sum() == 2 * (3 + 1)  # 14 % and 1 % of 20 KV heads, of two query heads each


def test_confidence_ranks_all_heads_anew_in_every_resample() -> None:
    """Against loops over resamples, with the draws that the map's seed gives."""
    rng = np.random.default_rng(1)
    values = {name: rng.normal(0.5, 0.2, (5, 3, 4)) for name in ("contextual", "retrieval")}
    head_map = with_values(values)
    rules = Rule(Quantile("contextual", count=4), "mine"), RULES["retrieval"]
    draws = np.random.default_rng(0).multinomial(5, np.full(5, 1 / 5), size=2000)
    for rule in rules:
        scores = head_map[rule.score].values.reshape(5, 12).astype(float)
        often = np.zeros(12)
        for draw in draws:
            means = (draw[:, None] * scores).sum(0) / 5
            if rule.kind == "quantile":
                often[np.argsort(-means)[:4]] += 1
            else:
                often += means > 0.1
        found = head_map.decision(rule)
        assert np.allclose(found.confidence.ravel(), often / 2000)
        assert found.share[1] <= found.share[0] <= found.share[2]
    assert head_map.decision(rules[0]).share == pytest.approx((1 / 3,) * 3)


def test_confidence_is_that_of_a_decision() -> None:
    head_map = with_values({"sink": noisy(0.9, 0.3 + 1e-6, 0.1)})
    sure = head_map.decision(RULES["sink"]).confidence[0]
    assert sure[0] == 1
    assert 0.3 < sure[1] < 0.7
    assert sure[2] == 0
    roles = head_map.roles()
    assert roles["confidence"][:2].tolist() == sure[:2].tolist()
    assert math.isnan(roles["confidence"][2])
    assert roles["sure"].tolist() == [True, False, False]


def test_a_single_prompt_gives_no_confidence() -> None:
    roles = with_values({"sink": noisy(0.9, 0.1, prompts=1)}).roles()
    assert roles["role"].tolist() == ["sink", ""]
    assert roles["confidence"].isna().all()
    assert not roles["sure"].any()


def test_the_primary_role_is_the_first_in_the_written_order() -> None:
    names = sorted({score for rule in RULES.values() for score in rule.scores})
    head_map = a_map(4, 6, 2, names)
    for row in head_map.roles().to_dict("records"):
        at = row["layer"], row["head"]
        passed = [role for role, rule in RULES.items() if head_map.decision(rule).passes[at]]
        assert row["roles"] == ",".join(passed)
        assert row["role"] == (passed[0] if passed else "")
        if passed:
            rule = RULES[passed[0]]
            low, high = head_map[rule.score].interval()
            assert row["score"] == head_map[rule.score].mean()[at]
            assert (row["low"], row["high"]) == (low[at], high[at])
            assert row["confidence"] == head_map.decision(rule).confidence[at]
        else:
            assert math.isnan(row["score"])


def test_maps_without_a_rule_have_no_roles() -> None:
    head_map = a_map(2, 3, 3, ["needle_mass"])
    assert (head_map.roles()["role"] == "").all()
    found = head_map.explain("L0H0")
    assert len(found.table) == 0
    assert "no role" in str(found)
    assert "needle_mass" in str(found)
    ElementTree.fromstring(found._repr_html_())


def test_low_scores_rank_first_where_they_speak_for_a_role() -> None:
    head_map = with_values({"distance": noisy(300, 20, 100, 250, 40, 60)})
    assert head_map.top("local", 2)["name"].tolist() == ["L0H1", "L0H4"]
    assert head_map.top("global", 2)["name"].tolist() == ["L0H0", "L0H3"]
    assert head_map.top("distance", 1)["name"].tolist() == ["L0H0"]
    roles = head_map.roles()["role"].tolist()
    assert roles == ["global", "local", "", "global", "local", ""]
    rows = head_map.explain("L0H4").table.set_index("role")
    assert rows.loc["local", "rank"] == 2
    assert rows.loc["global", "rank"] == 5


def test_an_explanation_holds_the_evidence_for_and_against() -> None:
    names = ["retrieval", "needle_mass", "razor_induction", "echo", "sink", "distance"]
    head_map = a_map(4, 6, 2, names)
    found = head_map.explain("l2h3")
    assert (found.name, found.kv_head, found.heads) == ("L2H3", 1, 24)
    assert head_map.explain((2, 3)).name == "L2H3"
    row = head_map.roles().set_index("name").loc["L2H3"]
    assert ",".join(found.roles) == row["roles"]
    assert found.role == row["role"]
    table = head_map.to_pandas().query("layer == 2 and head == 3").iloc[0]
    roles = ["retrieval", "razor_retrieval", "razor_retrieval", "sink", "global", "local"]
    assert found.table["role"].tolist() == roles
    for each in found.table.to_dict("records"):
        name, rule = each["score"], RULES[each["role"]]
        assert each["mean"] == pytest.approx(table[name])
        assert each["low"] == pytest.approx(table[f"{name}.low"])
        assert each["high"] == pytest.approx(table[f"{name}.high"])
        assert (each["rule"], each["kind"], each["source"]) == (str(rule), rule.kind, rule.source)
        assert each["passes"] == head_map.decision(rule).passes[2, 3]
        assert each["confidence"] == head_map.decision(rule).confidence[2, 3]
    assert found.scores["score"].tolist() == names
    assert found.others()["score"].tolist() == ["needle_mass"]
    shown = str(found)
    assert max(map(len, shown.splitlines())) <= 100
    for role in found.roles:
        assert RULES[role].source.split(",")[0].split()[0] in shown
    ElementTree.fromstring(found._repr_html_())


def test_a_head_that_is_not_there_is_named() -> None:
    head_map = a_map()
    with pytest.raises(HeadscopeError, match="no head L9H0"):
        head_map.explain("L9H0")
    with pytest.raises(HeadscopeError, match="names no head"):
        head_map.explain("9")


def test_intervals_are_numpy_s_quantiles() -> None:
    scores = Scores(np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32), "max")
    drawn = np.concatenate(list(scores.resampled(3)))
    assert drawn.shape == (2000, 2, 3)
    expected = np.quantile(drawn, (0.025, 0.975), axis=0)
    assert np.allclose(scores.interval(3), expected, atol=1e-12)
    one = dataclasses.replace(scores)
    assert one.interval_of(1, 2, 3) == pytest.approx(tuple(expected[:, 1, 2]))
    assert scores.interval_of(1, 2, 3) == pytest.approx(tuple(expected[:, 1, 2]))
