"""Pruning: which heads go first, what is left of an eval, and that nothing is measured twice."""

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from organism_prompts import HAYSTACK
from organisms import whole_organism

import headscope
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.given import given
from headscope.evals.measured import Measured, Scores
from headscope.evals.pruned import Order, Pruning
from headscope.evals.pruning import prune
from headscope.evals.scoring import scored
from headscope.evals.statistics import wilson
from headscope.headmap import HeadMap
from headscope.interventions.ablate import Ablate
from headscope.model import HeadModel
from headscope.probes.importance import importance
from headscope.probes.induction import Induction
from headscope.probes.sink import Sink
from headscope.prompts import Prompt, PromptFamily, Repeated


class Said(PromptFamily):
    """Random words, and what the tiny model says to them: it is right as long as it is whole."""

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        ids = self.rng(index).sample(range(3, 97), 16)
        for _ in range(2):
            ids.append(int(opened("llama")(ids)[0, -1].argmax()))
        return Prompt(tuple(ids[:-2]), answer="x", answer_ids=tuple(ids[-2:]))


PromptFamily.registry.pop("said")
FOUND = Said(seed=1)  # by which heads are chosen


def asked(samples: int = 6) -> Eval:
    return given(Said(seed=2, samples=samples))


@cache
def small() -> tuple[HeadModel, HeadMap]:
    """18 heads, and two scores of them."""
    family = Repeated(samples=2, block=20, times=3)
    model = opened("llama")
    return model, headscope.scan(model, [Induction(prompts=family), Sink(prompts=family)])


def pruning(**options: Any) -> Pruning:
    model, scores = small()
    wanted = {
        "orders": ("importance", "induction", "random"), "scores": scores, "randoms": 3,
        "step": 1 / 6, "until": 0.5, "prompts": FOUND, "selection": 2,
    }  # fmt: skip
    return prune(model, asked(), **(wanted | options))


@pytest.fixture(scope="module")
def found() -> Pruning:
    return pruning()


@pytest.mark.parametrize("seed", range(2))
def test_planted_heads_go_last_and_every_answer_stays_right(seed: int) -> None:
    """By their kinds more than 60 % of the heads have no say in the answer."""
    organism = whole_organism(seed)
    model = headscope.load(organism.hf, organism.tokenizer)
    found, questions = (dataclasses.replace(HAYSTACK, seed=i, samples=6) for i in (1, 2))
    result = prune(
        model, given(questions), orders=("importance", "random"), step=0.2, until=0.6, randoms=3,
        prompts=found, selection=4, seed=seed,
    )  # fmt: skip
    copying = {p for p, kind in organism.kinds.items() if kind in ("induction", "recent_induction")}
    assert not copying & set(result.pruned("importance", 36))
    areas = result.areas().set_index("order")
    assert areas.loc["importance", "exact"] == 1
    assert areas.loc["random", "exact"] < 1
    assert areas.loc["random", "value"] < areas.loc["importance", "value"] - 1


def made_up(known: float, random: list[float], questions: int = 24) -> Pruning:
    """Two orders by scores and random ones; the first keeps so many answers right, and so on."""

    def scores(share: float) -> Scores:
        right = [i < share * questions for i in range(questions)]
        return Scores(
            exact=right, logp=[-0.1 if each else -9.0 - i for i, each in enumerate(right)]
        )

    orders = [Order(name=name, kind="score", heads=[(0, 0)]) for name in ("good", "bad")]
    orders += [Order(name=f"random {i}", kind="random", heads=[(0, 1)]) for i in range(len(random))]
    measured = Measured(
        task="t", metric="answer", parameters={}, digests=[str(i) for i in range(questions)],
        facts=[{}] * questions, tokens=[1] * questions, chance=0,
        scores=list(map(scores, (1, known, 0.25, *random))),
    )  # fmt: skip
    return Pruning(
        model="m", fingerprint="f", seed=0, total=4, counts=[1], selection=[], orders=orders,
        tasks=[measured], versions={},
    )  # fmt: skip


def test_claims_say_no_more_than_random_orders_allow() -> None:
    better = made_up(0.75, [0.25] * 19)
    good, bad, both = better.claims()
    assert "keeps a mean share of right answers of 0.88" in good
    assert "19 random orders 0.62, a difference of +0.25" in good
    assert ": more than random orders keep (p = 0.05" in good
    assert ": not significantly more than random orders keep (p = 1," in bad
    assert "of 'good' less that of 'bad' is +0.25 [" in both
    assert ": a difference (p = " in both
    one_as_good = made_up(0.75, [0.25] * 18 + [0.75])
    assert ": not significantly more" in one_as_good.claims()[0]
    assert "too few random orders" in made_up(0.75, [0.25] * 18).claims()[0]
    assert "no difference that could be told" in made_up(0.25, [0.25] * 19).claims()[2]


def test_questions_that_all_agree_still_leave_doubt() -> None:
    """24 right answers of 24 are no proof of a share of 1, nor equal ones of no difference."""
    found = made_up(1.0, [0.25] * 2)
    (good, _, _) = found.areas().to_dict("records")
    assert good["exact"] == good["exact.high"] == 1
    assert good["exact.low"] == pytest.approx(wilson(24, 24)[0])
    same = made_up(0.25, [0.25] * 2).differences().to_dict("records")[0]
    assert same["exact"] == 0
    assert -0.2 < same["exact.low"] < 0 < same["exact.high"] < 0.2
    assert all("nats" in claim for claim in found.claims())


def test_every_step_is_the_model_without_those_heads(found: Pruning) -> None:
    model, _ = small()
    items = asked().items(model.tokenizer)
    rows = found.to_pandas().set_index(["order", "pruned"])
    for order in ("importance", "induction", "random 2"):
        for count in (0, 3, 9):
            with Ablate(found.pruned(order, count))(model):
                by_hand = [scored(model, item)[0] for item in items]
            assert rows.loc[(order, count), "exact"] == np.mean([s.exact for s in by_hand])
            value = np.mean([s.logp for s in by_hand])
            assert rows.loc[(order, count), "value"] == pytest.approx(value, abs=1e-3)
    assert found.complete
    assert found.counts == [3, 6, 9]
    assert found.shares == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2])


def test_importance_is_recomputed_on_the_pruned_model(found: Pruning) -> None:
    model, _ = small()
    prompts = dataclasses.replace(FOUND, samples=2).prompts(model.tokenizer)
    out: list[Any] = []
    for count in (3, 6, 9):
        with Ablate(tuple(out))(model):
            mean = torch.stack([importance(model, prompt).double() for prompt in prompts]).mean(0)
        left = [head for head in model.heads if head not in out]
        out += sorted(left, key=lambda head: float(mean[head]))[:3]
        assert found.pruned("importance", count) == out[:count]
    once = pruning(orders=["importance_once", "importance_in_layer_once"])
    whole = torch.stack([importance(model, prompt).double() for prompt in prompts]).mean(0)
    by_layer = whole / whole.square().sum(-1, keepdim=True).sqrt()
    for name, score in (("importance_once", whole), ("importance_in_layer_once", by_layer)):
        expected = sorted(model.heads, key=lambda head: float(score[head]))
        assert once.pruned(name, 9) == expected[:9]
    assert once.pruned("importance_once", 3) == found.pruned("importance", 3)
    assert once.pruned("importance_once", 9) != found.pruned("importance", 9)


def test_scores_go_from_the_lowest_up_and_ties_are_drawn() -> None:
    scores, mean = small()[1], small()[1]["induction"].mean()
    high = np.broadcast_to(mean > np.median(mean), scores["induction"].values.shape)
    two = dataclasses.replace(scores["induction"], values=high.astype(np.float32))
    tied = dataclasses.replace(scores, scores={"induction": two})
    made = [pruning(orders=["induction"], scores=m, seed=s) for m, s in
            ((scores, 0), (tied, 0), (tied, 0), (tied, 1))]  # fmt: skip
    ranked = [mean[head] for head in made[0].orders[0].heads]
    assert ranked == sorted(ranked)
    assert made[1] == made[2]
    assert made[1].orders != made[3].orders
    assert len({layer for layer, _ in made[1].pruned("induction", 9)}) > 1


def test_random_orders_are_nested_and_stay_when_there_are_more(found: Pruning) -> None:
    more = pruning(orders=["random"], randoms=5)
    drawn = [order.heads for order in found.orders if order.kind == "random"]
    assert [order.heads for order in more.orders][:3] == drawn
    assert len({tuple(heads) for heads in drawn}) == 3
    assert all(len(heads) == 9 for heads in drawn)


def test_areas_are_mean_heights_of_the_curves(found: Pruning) -> None:
    rows = found.to_pandas()
    areas = found.areas().set_index("order")
    heights = {}
    for order, curve in rows.groupby("order"):
        y = curve.sort_values("pruned")["exact"].to_numpy()
        heights[order] = (y[0] / 2 + y[1] + y[2] + y[3] / 2) / 3
    random = np.mean([heights[f"random {i}"] for i in (1, 2, 3)])
    for name in ("importance", "induction"):
        assert areas.loc[name, "exact"] == pytest.approx(heights[name])
        assert areas.loc[name, "exact.beyond"] == pytest.approx(heights[name] - random)
    (gap,) = found.differences().to_dict("records")
    assert (gap["first"], gap["second"]) == ("importance", "induction")
    assert gap["exact"] == pytest.approx(heights["importance"] - heights["induction"])
    assert gap["exact.low"] <= gap["exact"] <= gap["exact.high"]
    assert 0 < gap["exact.p"] <= 1
    claims = found.claims()
    assert len(claims) == 3
    assert "3 random orders" in claims[0]
    assert "too few random orders for a verdict" in claims[0]
    assert "Holm over the pairs" in claims[2]
    table = found.table()
    assert list(table["order"]) == [o for o in ("importance", "induction", "random") for _ in "123"]
    for row in table.to_dict("records"):
        for name in ("exact", "value", "exact.change", "change"):
            assert row[f"{name}.low"] <= row[name] + 1e-9, (row["order"], name)
            assert row[name] <= row[f"{name}.high"] + 1e-9, (row["order"], name)


def stopping(what: str, at: int) -> Callable[[str, int, int], None]:
    def stop(name: str, done: int, total: int) -> None:
        if name.startswith(what) and done == at:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(("what", "at"), [("choosing", 3), ("choosing", 5), ("said", 4)])
def test_what_was_cut_off_goes_on(found: Pruning, what: str, at: int, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(KeyboardInterrupt):
        pruning(out=path, progress=stopping(what, at))
    before = Pruning.load(path)
    assert not before.complete
    steps: list[Any] = []
    again = pruning(out=path, progress=lambda *step: steps.append(step))
    assert again.orders == found.orders
    assert again.tasks == found.tasks
    assert Pruning.load(path) == again
    if what == "choosing":
        assert len(before.orders[0].heads) == 3 * (at // 2)
        assert ("choosing by importance", 0, 6) not in steps
    else:
        assert before.done == 4
        assert (again.tasks[0].task, 3, 6) not in steps


def test_another_pruning_or_a_damaged_file_is_refused(found: Pruning, tmp_path: Path) -> None:
    path = found.save(tmp_path / "p.json")
    assert pruning(out=path) == found
    for other in ({"randoms": 4}, {"step": 0.5, "until": 0.5}, {"selection": 3}, {"seed": 1}):
        with pytest.raises(HeadscopeError, match="holds another pruning"):
            pruning(out=path, **other)
    whole = json.loads(path.read_text())
    whole["orders"][0]["heads"][1] = whole["orders"][0]["heads"][0]
    path.write_text(json.dumps(whole))
    with pytest.raises(
        HeadscopeError, match=r"damaged or no pruning \(.*pruned twice.*prune again"
    ):
        Pruning.load(path)
    del whole["orders"][0]
    path.write_text(json.dumps(whole))
    with pytest.raises(HeadscopeError, match="were not measured on its evals"):
        Pruning.load(path)


def test_nothing_is_said_before_anything_is_measured(found: Pruning) -> None:
    empty = found.model_copy(deep=True)
    for scores in empty.tasks[0].scores:
        scores.logp, scores.exact = [], []
    assert empty.claims() == []
    assert not len(empty.to_pandas())
    with pytest.raises(HeadscopeError, match="measured no question yet"):
        empty.table()
    with pytest.raises(HeadscopeError, match="No order 'sink' prunes 3 heads here"):
        found.pruned("sink", 3)
    with pytest.raises(HeadscopeError, match="No order 'importance' prunes 10 heads"):
        found.pruned("importance", 10)
    assert Order(name="x", kind="random").heads == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": []}, "Name at least one order"),
        ({"orders": ["importance", "importance"]}, "'importance' is there twice"),
        ({"orders": ["entropy"]}, "has no score 'entropy'"),
        ({"orders": ["sink"], "scores": None}, "'sink' is none of importance, importance_in_layer"),
        ({"step": 0.0}, "0 < step <= until <= 1"),
        ({"step": 0.3, "until": 0.2}, "0 < step <= until <= 1"),
        ({"until": 1.1}, "0 < step <= until <= 1"),
        ({"step": 0.01, "until": 0.01}, "prune none of 18 heads"),
        ({"randoms": 0}, "randoms=0"),
        ({"selection": 0}, "selection=0"),
        ({"seed": -1}, "seed=-1"),
        ({"samples": 0}, "at least one question"),
        ({"prompts": Said(seed=2)}, "both choose the heads and test them"),
        ({"prompts": None}, "both choose the heads and test them"),
        ({"prompts": Repeated(block=5, times=2)}, "'importance' differentiates the likelihood"),
    ],
)
def test_mistakes_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        pruning(**options)


def test_questions_that_say_nothing_are_refused() -> None:
    model, scores = small()
    with pytest.raises(HeadscopeError, match="at least 6 prompts"):
        prune(model, asked(5), orders=["random"])
    finding = dataclasses.replace(asked(), split="detect")
    with pytest.raises(HeadscopeError, match="both choose the heads"):
        prune(model, finding, prompts=FOUND)
    with pytest.raises(HeadscopeError, match="which is for finding heads"):
        prune(model, finding, orders=["induction"], scores=scores)
    with pytest.raises(HeadscopeError, match="answers no question right"):
        prune(model, given(Wrong(samples=6)), orders=["random"])
    with pytest.raises(HeadscopeError, match="with other weights"):
        prune(opened("llama_mha"), asked(), scores=scores)


class Wrong(PromptFamily):
    """Words that no model would foretell."""

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        ids = self.rng(index).sample(range(3, 97), 20)
        return Prompt(tuple(ids[:-2]), answer="x", answer_ids=tuple(ids[-2:]))


PromptFamily.registry.pop("wrong")


def test_running_text_has_no_right_answers() -> None:
    """Then nats decide."""

    @dataclasses.dataclass(frozen=True)
    class _Text(Eval):
        source, licence, metric = "none", "none", "tokens"

        def item(self, index: int, tokenizer: Any) -> Item:
            return Item(Said(seed=3).prompt(index, tokenizer))

    result = prune(small()[0], _Text(samples=6), orders=["random"], randoms=2, step=0.5)
    assert np.isnan(result.areas()["exact"].to_numpy()).all()
    assert np.isfinite(result.areas()["value"].to_numpy()).all()
    assert result.claims() == []
    assert np.isnan(result.table()["exact.low"].to_numpy()).all()
    result = prune(small()[0], _Text(samples=6), prompts=FOUND, selection=2, randoms=2, step=0.5)
    assert "log-probability of a token" in result.claims()[0]
