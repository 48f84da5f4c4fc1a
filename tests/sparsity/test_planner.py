"""Plans: planted heads are found, budgets are met, and what cannot be is said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import a_map
from organism_prompts import HAYSTACK
from organisms import rope_organism

import headscope
from headscope.errors import HeadscopeError
from headscope.patterns import Full, Pattern, Streaming
from headscope.patterns.rules import Rule
from headscope.prompts.base import Prompt
from headscope.sparsity import Budget, Plan, Recalls, measure_recall, plan, plan_by_score
from headscope.sparsity.candidates import default_rules, parsed_rules
from headscope.sparsity.profile import ProfiledModel

MODEL = ProfiledModel(name="made", layers=(0, 3), n_heads=4, n_kv_heads=2, d_head=8)
RULES: tuple[Rule, ...] = (Streaming(2, 2), Streaming(2, 8), Full())


def made(seed: int = 0, lengths: tuple[int, ...] = (16, 32)) -> Recalls:
    """Recalls that grow with what a rule sees."""
    drawn = np.random.default_rng(seed).random((len(lengths), 2, 4, len(RULES)))
    kept = np.sort(drawn, -1)
    kept[..., -1] = 1
    return Recalls.of(MODEL, RULES, lengths, kept, output=(1 - kept) ** 2)


def seen_pairs(rule: Rule, n: int) -> float:
    if isinstance(rule, Full):
        return 1.0
    assert isinstance(rule, Streaming)
    seen = [sum(j < rule.sink or i - j < rule.window for j in range(i + 1)) for i in range(n)]
    return sum(seen) / (n * (n + 1) / 2)


def held(rules: list[Rule], n: int) -> int:
    if any(isinstance(rule, Full) for rule in rules):
        return n
    sink = max(rule.sink for rule in rules if isinstance(rule, Streaming))
    window = max(rule.window for rule in rules if isinstance(rule, Streaming))
    return min(n, sink + window)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 99),
    st.sampled_from(["density", "kv"]),
    st.floats(0.45, 1),
    st.sampled_from(["kv_head", "head"]),
)
def test_budgets_are_met_at_every_length(
    seed: int, kind: Any, share: float, granularity: Any
) -> None:
    if (kind, granularity) == ("kv", "head"):
        return
    recalls = made(seed)
    found = plan(recalls, Budget(kind, share), granularity=granularity)
    grid = [found.profile.of_layer(layer) for layer in MODEL.layers]
    assert {rule for row in grid for rule in row} <= set(RULES)
    for taken in found.taken:
        density = np.mean([[seen_pairs(rule, taken.n) for rule in row] for row in grid])
        kv = np.mean(
            [[held(list(row[at : at + 2]), taken.n) / taken.n for at in (0, 2)] for row in grid]
        )
        assert taken.density == pytest.approx(density)
        assert taken.kv == pytest.approx(kv)
        assert taken.kv_bytes == round(kv * taken.n * 4) * 8 * 2 * 2
        assert taken.budget == pytest.approx(density if kind == "density" else kv)
        assert taken.budget <= share + 1e-6
    if granularity == "kv_head":
        assert all(row[0] == row[1] and row[2] == row[3] for row in grid)
    lost = recalls.loss()
    index = np.array([[RULES.index(rule) for rule in row] for row in grid])
    assert found.lost == pytest.approx(np.take_along_axis(lost, index[..., None], 2).sum())
    assert found.bound is not None
    assert found.bound <= found.lost + 1e-12
    assert found.gap is not None
    assert 0 <= found.gap <= 2e-4


@pytest.mark.parametrize("over", ["mean", "worst"])
@pytest.mark.parametrize("loss", ["recall", "output"])
def test_a_plan_loses_what_its_loss_says(over: Any, loss: Any) -> None:
    recalls = made(3)
    lost = 1 - recalls.recall if loss == "recall" else recalls.losses["output"]
    each = lost.mean(0) if over == "mean" else lost.max(0)
    np.testing.assert_allclose(recalls.loss(loss, over), each)
    assert plan(recalls, 1.0, loss=loss, over=over).lost == 0
    assert plan(recalls, 0.6, loss=loss, over=over).loss == loss
    assert plan(recalls, 0.6).loss == "output"


def test_a_head_that_needs_everything_gets_it() -> None:
    kept = np.full((1, 2, 4, 3), 0.99)
    kept[..., -1] = 1
    kept[0, 1, 2, :2] = 0.1
    recalls = Recalls.of(MODEL, RULES, (64,), kept)
    by_head = plan(recalls, "density=0.35", granularity="head")
    whole = [
        (layer, head)
        for layer in MODEL.layers
        for head, rule in enumerate(by_head.profile.of_layer(layer))
        if rule == Full()
    ]
    assert (3, 2) in whole
    by_group = plan(recalls, "kv=0.4")
    assert by_group.profile.of_layer(3)[2:] == (Full(), Full())
    assert "2 query heads have one rule" in str(by_group)
    assert by_group.table().set_index("rule").loc["full", "kv_heads"] == 1


def test_planted_heads_that_look_far_keep_their_sight() -> None:
    organism = rope_organism(0)
    model = headscope.load(organism.hf, organism.tokenizer)
    prompts = HAYSTACK.prompts(organism.tokenizer)
    far = {place for place, kind in organism.kinds.items() if kind in ("induction", "retrieval")}
    near = organism.roles["streaming"]
    recalls = measure_recall(model, (Streaming(4, 8), Full()), prompts[:4])
    lost = recalls.loss("recall")[..., 0]
    assert far
    assert min(lost[place] for place in far) > max(lost[place] for place in near)
    share = len(far) / len(organism.kinds)
    budget = share + (1 - share) * Streaming(4, 8).density(recalls.lengths[0]) + 1e-6
    found = plan(recalls, budget, granularity="head", loss="recall")
    given = {
        (layer, head)
        for layer in model.layers
        for head, rule in enumerate(found.profile.of_layer(layer))
        if rule == Full()
    }
    assert not given & near


def test_rules_can_be_left_out() -> None:
    recalls = made()
    found = plan(recalls, 0.9, rules=[RULES[0], RULES[2]])
    assert RULES[1] not in {rule for layer in (0, 3) for rule in found.profile.of_layer(layer)}
    with pytest.raises(HeadscopeError, match="was not measured"):
        plan(recalls, 0.9, rules=[Streaming(1, 1)])


def test_a_plan_is_kept(tmp_path: Path) -> None:
    found = plan(made(), "kv=0.6")
    assert Plan.load(found.save(tmp_path / "p.json")) == found
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(HeadscopeError, match="plan again"):
        Plan.load(tmp_path / "p.json")


@pytest.mark.parametrize("granularity", ["kv_head", "head"])
@pytest.mark.parametrize("share", [0.45, 0.5, 0.77, 1.0])
def test_a_score_gives_its_rule_to_as_few_heads_as_meet_the_budget(
    granularity: Any, share: float
) -> None:
    rule, lengths = Streaming(2, 6), (32, 64)
    found = plan_by_score(
        a_map(scores=["retrieval"]), "retrieval", share, lengths=lengths, rule=rule,
        granularity=granularity, d_head=8,
    )  # fmt: skip
    with_rule = sum(each == rule for layer in range(4) for each in found.profile.of_layer(layer))
    unit = 3 if granularity == "kv_head" else 1
    densities = [seen_pairs(rule, n) for n in lengths]
    for n, density, taken in zip(lengths, densities, found.taken, strict=True):
        mine = (with_rule * density + 24 - with_rule) / 24
        assert taken.n == n
        assert taken.budget == pytest.approx(mine)
        assert mine <= share + 1e-9
    if with_rule:
        fewer = with_rule - unit
        assert max((fewer * d + 24 - fewer) / 24 for d in densities) > share
    assert (with_rule == 0) == (share == 1)
    assert found.lost is None
    assert "ranked by retrieval" in str(found)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0.5", Budget("density", 0.5)),
        ("kv=0.25", Budget("kv", 0.25)),
        ("latency=1", Budget("latency", 1.0)),
        ("decode_latency=0.4", Budget("latency", 0.4, "decode")),
    ],
)
def test_budgets_as_text(text: str, budget: Budget) -> None:
    assert Budget.of(text) == budget
    assert Budget.of(budget.label) == budget


@pytest.mark.parametrize("text", ["0", "1.5", "kv=-1", "nan", "kv=nan", "kv=", "time=0.5", "half"])
def test_no_budgets(text: str) -> None:
    with pytest.raises(HeadscopeError, match="budget"):
        Budget.of(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"budget": "kv=0.2"},
            r"below the smallest that these rules allow for 16, 32 tokens, 0\.25",
        ),
        ({"budget": 0.1}, "below the smallest"),
        ({"budget": "kv=0.5", "granularity": "head"}, "plan with granularity='kv_head'"),
        ({"budget": "latency=0.5", "granularity": "head"}, "plan with granularity='kv_head'"),
        ({"budget": "latency=0.5"}, "costs=measure_costs"),
        ({"loss": "answer"}, "was not measured"),
    ],
)
def test_plans_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HeadscopeError, match=said) as error:
        plan(made(), **options)
    assert "\n" not in str(error.value)


def test_the_smallest_budget_that_is_named_is_enough() -> None:
    with pytest.raises(HeadscopeError) as error:
        plan(made(), 0.05)
    least = float(str(error.value).split(" tokens, ")[1].split(":")[0])
    assert plan(made(), least).taken[0].budget == pytest.approx(seen_pairs(RULES[0], 16))


def test_a_score_whose_rule_is_too_wide() -> None:
    found = a_map(scores=["retrieval"])
    with pytest.raises(HeadscopeError, match="more than a budget of"):
        plan_by_score(found, "retrieval", "kv=0.2", lengths=(32,), rule=Streaming(4, 16), d_head=8)
    with pytest.raises(HeadscopeError, match="at least"):
        plan_by_score(found, "retrieval", 0.5, lengths=(0,), d_head=8)


def test_one_token_can_be_planned_for() -> None:
    kept = np.ones((1, 2, 4, 3))
    found = plan(Recalls.of(MODEL, RULES, (1,), kept), 1.0)
    assert found.taken[0].kv == 1
    for n in (0, -1):
        with pytest.raises(HeadscopeError, match="one token at least"):
            Recalls.of(MODEL, RULES, (n,), kept)


@pytest.mark.parametrize("values", [np.nan, -0.1, 1.5])
def test_recalls_are_shares(values: float) -> None:
    with pytest.raises(HeadscopeError, match="recall is"):
        Recalls.of(MODEL, RULES, (16,), np.full((1, 2, 4, 3), values))


def test_default_rules_grow_with_the_text() -> None:
    assert default_rules((256, 512)) == (
        *(Streaming(4, window) for window in (16, 32, 64, 128, 256)), Full(),
    )  # fmt: skip
    assert default_rules((1,)) == (Streaming(4, 1), Full())
    with pytest.raises(HeadscopeError, match="give lengths"):
        default_rules(())


def test_rules_as_text() -> None:
    typed = "streaming:sink=4,window=64; full;full;streaming:growth=0.25,window=0"
    assert parsed_rules(typed) == (
        Streaming(4, 64), Full(), Streaming(4, 0, 0.25),
    )  # fmt: skip
    for text, said in (
        (" ; ", "Name rules"), ("stream", "no rule named"), ("streaming:sink", "sets no number"),
        ("streaming:sink=x", "sets no number"), ("streaming:sinks=4", "has no 'sinks'"),
        ("streaming:window=0", "window >= 1"), ("streaming:sink=true", "sets no number"),
    ):  # fmt: skip
        with pytest.raises(HeadscopeError, match=said):
            parsed_rules(text)


def test_a_rule_of_ones_own_is_planned_with(llama: Any) -> None:
    @dataclass(frozen=True)
    class EveryOther(Pattern):
        paper = "none"
        step: int = 2

        def mask(self, query: Any, key: Any) -> Any:
            return (query - key) % self.step == 0

    try:
        one = Prompt(tuple(range(3, 23)), answer_ids=(5,))
        recalls = measure_recall(llama, [EveryOther(3), Full()], [one])
        found = plan(recalls, 0.8, loss="recall")
    finally:
        Pattern.registry.pop("every_other")
    (taken,) = found.taken
    kept = sum(i // 3 + 1 for i in range(20)) / (20 * 21 / 2)
    count = sum(
        each == EveryOther(3) for layer in range(3) for each in found.profile.of_layer(layer)
    )
    assert count > 0
    assert taken.density == pytest.approx((count * kept + 18 - count) / 18)


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_layers_with_windows_of_their_own_are_not_counted_wrong(name: str) -> None:
    facts = ProfiledModel.of(opened(name))
    assert facts.windowed
    assert not ProfiledModel.of(opened("llama")).windowed
    rules = (Streaming(2, 4), Full())
    shape = (1, len(facts.layers), facts.n_heads, 2)
    recalls = Recalls.of(facts, rules, [32], np.ones(shape))
    for budget in ("kv=0.5", "density=0.5"):
        with pytest.raises(HeadscopeError, match="window of their own"):
            plan(recalls, budget)
