"""Profiles of equal cost beside each other: what is compared, and what may be claimed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import opened
from made_up import a_map

from headscope.errors import HeadscopeError
from headscope.evals.evaluation import Change, Evaluation
from headscope.evals.measured import Measured, Scores
from headscope.evals.own import Own
from headscope.evals.statistics import paired_proportions
from headscope.headmap import HeadMap
from headscope.model import HeadModel
from headscope.patterns import Full, Streaming
from headscope.prompts.base import Prompt
from headscope.sparsity import Pareto, Recalls, SparseProfile, measure_recall, pareto
from headscope.sparsity.frontier import Made, Point
from headscope.sparsity.profile import ProfiledModel
from headscope.viz.figures import pareto as pareto_figure
from headscope.viz.pareto_page import pareto_page

RULES = (Streaming(2, 4), Streaming(2, 12), Full())


@pytest.fixture
def questions(tmp_path: Path) -> Own:
    path = tmp_path / "own.jsonl"
    words = [" ".join(f"w{3 + (7 * i + 5 * j) % 90}" for j in range(30)) for i in range(8)]
    lines = [json.dumps({"text": text, "answer": f" w{i + 5}"}) for i, text in enumerate(words)]
    path.write_text("\n".join(lines) + "\n")
    return Own(path=str(path))


def recalls_of(model: HeadModel) -> Recalls:
    prompts = [Prompt(tuple(range(5 + i, 35 + i)), answer_ids=(4, 5)) for i in range(2)]
    return measure_recall(model, RULES, prompts)


def map_of(model: HeadModel) -> HeadMap:
    found = a_map(layers=3, scores=["retrieval"])
    found.info.model.fingerprint = model.fingerprint
    return found


@pytest.mark.parametrize("kind", ["density", "kv"])
def test_profiles_of_equal_cost_are_compared(
    kind: str, llama: HeadModel, questions: Own, tmp_path: Path
) -> None:
    recalls, path = recalls_of(llama), tmp_path / "pareto.json"
    found = pareto(
        llama, map_of(llama), recalls, [f"{kind}=0.6", f"{kind}=0.8"],
        [questions], randoms=3, score="retrieval", rule=Streaming(2, 4), out=path,
    )  # fmt: skip
    assert found.budgets == [0.6, 0.8]
    for budget in found.budgets:
        (mine,) = found.of(budget, "planner")
        counts = sorted(str(r) for layer in range(3) for r in mine.profile.of_layer(layer))
        assert {point.share for point in found.of(budget, "random")} == {mine.share}
        for drawn in found.of(budget, "random"):
            rules = [drawn.profile.of_layer(layer) for layer in range(3)]
            assert sorted(str(r) for row in rules for r in row) == counts
            assert all(len(set(row[at : at + 3])) == 1 for row in rules for at in (0, 3))
        (even,) = found.of(budget, "uniform")
        (rule,) = {r for layer in range(3) for r in even.profile.of_layer(layer)}
        n = recalls.lengths[0]
        wider = SparseProfile.of(recalls.model, {}, rest=Streaming(4, rule.window + 1))
        taken = {
            "density": (even.profile.density(n), wider.density(n)),
            "kv": (even.profile.kv_bytes(n), wider.kv_bytes(n)),
        }[kind]
        whole = 1 if kind == "density" else SparseProfile.of(recalls.model, {}).kv_bytes(n)
        assert taken[0] <= budget * whole < taken[1]
        assert even.share == pytest.approx(taken[0] / whole)
        for point in (mine, *found.of(budget, "score")):
            assert point.share <= budget + 1e-9
    table = found.table()
    assert table["profile"].tolist() == ["planner", "retrieval", "uniform", "random"] * 2
    assert len(found.differences()) == 6
    assert len(found.claims()) == 6
    assert all("no claim" in claim for claim in found.claims() if "random" in claim)
    assert Pareto.load(path).claims() == found.claims()
    answers = path.with_name("pareto-answers.json")
    before = answers.read_bytes()
    again = pareto(
        llama, map_of(llama), recalls, [f"{kind}=0.6", f"{kind}=0.8"],
        [questions], randoms=3, score="retrieval", rule=Streaming(2, 4), out=path,
    )  # fmt: skip
    assert again == found
    assert answers.read_bytes() == before


def test_without_a_map_there_is_no_score(llama: HeadModel, questions: Own) -> None:
    found = pareto(llama, None, recalls_of(llama), [0.7], [questions], randoms=0)
    assert [point.name for point in found.points] == ["planner", "uniform"]
    assert found.score is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budgets": []}, "one budget or several"),
        ({"budgets": [0.5, "0.5"]}, "each once"),
        ({"budgets": [0.5, "kv=0.6"]}, "all of density or all of KV"),
        ({"budgets": ["latency=0.5"]}, "all of density or all of KV"),
        ({"randoms": 100}, "0 to 99 random profiles"),
        ({"budgets": [0.01]}, "below the smallest"),
        ({"tasks": ["nedle"]}, "nedle"),
    ],
)
def test_comparisons_that_cannot_be(
    options: dict[str, Any], said: str, llama: HeadModel, questions: Own
) -> None:
    given: dict[str, Any] = {"budgets": [0.7], "tasks": [questions], "randoms": 0} | options
    with pytest.raises(HeadscopeError, match=said):
        pareto(llama, None, recalls_of(llama), **given)


def test_recalls_of_another_model_or_of_the_questions_are_refused(
    llama: HeadModel, questions: Own
) -> None:
    other = a_map(layers=3, scores=["retrieval"])
    with pytest.raises(HeadscopeError, match="other weights"):
        pareto(llama, other, recalls_of(llama), [0.7], [questions], score="retrieval")
    with pytest.raises(HeadscopeError, match="another model or other weights"):
        pareto(opened("llama_mha"), None, recalls_of(llama), [0.7], [questions])
    asked = [item.prompt for item in questions.items(llama.tokenizer)]
    mine = measure_recall(llama, RULES, asked[:2])
    with pytest.raises(HeadscopeError, match="both make the plan and test it"):
        pareto(llama, None, mine, [0.7], [questions])


# ---- what is said, of answers that are known -----------------------------------------------

MODEL = ProfiledModel(name="made", layers=(0,), n_heads=2, n_kv_heads=2, d_head=8)


def known(
    right: dict[str, list[bool]], nats: dict[str, list[float]], randoms: int, metric: Any = "answer"
) -> Pareto:
    """A comparison at one budget whose conditions scored as they are given."""
    names = ["base", "planner", "score", "uniform", *(f"random {i}" for i in range(randoms))]
    n = len(nats["base"])
    measured = Measured(
        task="made", metric=metric, parameters={}, digests=[str(i) for i in range(n)],
        facts=[{}] * n, tokens=[1] * n, chance=0.0,
        scores=[
            Scores(logp=nats[name.split()[0]], exact=right[name.split()[0]]) for name in names
        ],
    )  # fmt: skip
    evaluation = Evaluation(
        model="made", fingerprint="f", seed=0, conditions=[Change(label=name) for name in names],
        tasks=[measured], versions={},
    )  # fmt: skip
    kinds: list[Made] = ["planner", "score", "uniform", *["random"] * randoms]  # pyright: ignore
    points = [
        Point(
            name=kind, made=kind, budget=0.5, share=0.49, condition=at + 1,
            profile=SparseProfile.of(MODEL, {}),
        )
        for at, kind in enumerate(kinds)
    ]  # fmt: skip
    return Pareto(
        budget_kind="kv", granularity="kv_head", lengths=(64,), loss="answer", score="score",
        points=tuple(points), evaluation=evaluation,
    )  # fmt: skip


def answers(n: int = 20) -> tuple[dict[str, list[bool]], dict[str, list[float]]]:
    rng = np.random.default_rng(0)
    noise = {name: rng.normal(0, 0.05, n) for name in ("planner", "score", "uniform", "random")}
    level = {"planner": -0.3, "score": -0.3, "uniform": -4.0, "random": -6.0}
    nats = {name: (level[name] + noise[name]).tolist() for name in noise}
    nats["base"] = [-0.2] * n
    right = {"base": [True] * n, "planner": [True] * n, "score": [True] * (n - 1) + [False]}
    right |= {"uniform": [i % 2 == 0 for i in range(n)], "random": [False] * n}
    return right, nats


def test_claims_are_made_where_intervals_allow() -> None:
    found = known(*answers(), randoms=19)
    score, uniform, random = found.claims()
    assert "nothing is claimed" in score
    assert "planned is better" in uniform
    assert "0 of them do at least as well (p = 0.05, corrected" in random
    assert "the choice of heads matters" in random
    rows = found.differences().set_index("other")
    assert rows.loc["random", "p"] == pytest.approx(1 / 20)
    assert rows.loc["uniform", "exact"] == 0.5
    gap = np.array([0.0, 1.0] * 10)
    expected = paired_proportions(gap)
    assert rows.loc["uniform", ["exact.low", "exact.high"]].tolist() == pytest.approx(expected)
    table = found.table().set_index("profile")
    assert table.loc["uniform", "of_dense"] == 0.5
    assert table.loc["random", ["of_dense", "of_dense.low", "of_dense.high"]].tolist() == [0, 0, 0]
    assert table.loc["planner", "of_dense"] == 1
    assert table.loc["planner", "of_dense.low"] < 1


def test_worse_is_said_and_random_profiles_that_win_are_counted() -> None:
    right, nats = answers()
    nats["planner"], nats["uniform"] = nats["uniform"], nats["planner"]
    right["planner"], right["uniform"] = right["uniform"], right["planner"]
    nats["random"] = nats["uniform"]
    found = known(right, nats, randoms=19)
    _, uniform, random = found.claims()
    assert "planned is worse" in uniform
    assert "19 of them do at least as well (p = 1, corrected" in random
    assert "nothing is claimed" in random


def test_nothing_is_claimed_where_right_answers_say_the_opposite() -> None:
    right, nats = answers()
    right["planner"], right["uniform"] = right["uniform"], right["planner"]
    _, uniform, _ = known(right, nats, randoms=19).claims()
    assert "right answers say the opposite, and nothing is claimed" in uniform


def test_a_model_that_answers_nothing_has_no_share_of_right_answers() -> None:
    right, nats = answers()
    found = known({name: [False] * 20 for name in right}, nats, randoms=2)
    assert found.table()["of_dense"].isna().all()
    assert all("at the floor" in claim for claim in found.claims())
    assert "log-probability of the answer, change in nats" in pareto_figure(found, 0).svg()


def test_running_text_has_no_right_answers() -> None:
    right, nats = answers()
    found = known(right, nats, randoms=2, metric="tokens")
    assert found.table()["exact"].isna().all()
    assert found.differences()["exact"].isna().all()
    assert not any("right" in claim for claim in found.claims())
    assert "nats" in pareto_figure(found, 0).svg()


def test_the_chart_has_a_mark_for_each_kind() -> None:
    found = known(*answers(), randoms=3)
    drawn = pareto_figure(found, 0).svg()
    assert drawn.startswith("<svg")
    assert drawn.endswith("</svg>")
    for name in ("planned", "by score, one rule", "uniform window", "random, same rules"):
        assert name in drawn
    assert "share of KV bytes held" in drawn
    page = pareto_page(found)
    assert all(claim.split(",")[0] in page for claim in found.claims())
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_a_pareto_whose_parts_do_not_fit_is_damaged(tmp_path: Path) -> None:
    found = known(*answers(), randoms=1)
    path = found.save(tmp_path / "p.json")
    raw = json.loads(path.read_text())
    del raw["points"][0]
    path.write_text(json.dumps(raw))
    with pytest.raises(HeadscopeError, match="measure it again"):
        Pareto.load(path)
