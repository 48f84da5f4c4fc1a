"""Evaluations: base and changed, paired, by facts, resumable, saved; mistakes in one sentence."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import opened
from transformers import PreTrainedTokenizerBase

import headscope
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.describing import described, parsed
from headscope.evals.evaluate import evaluate
from headscope.evals.evaluation import Evaluation
from headscope.evals.given import given
from headscope.evals.scoring import scored
from headscope.interventions.ablate import Ablate
from headscope.interventions.act import ACT
from headscope.interventions.add_sink import AddSink
from headscope.interventions.directions import Directions
from headscope.interventions.focus_directions import FocusDirections
from headscope.interventions.insta_boost import InstaBoost
from headscope.interventions.pasta import Pasta
from headscope.model import HeadModel
from headscope.prompts import Prompt, PromptFamily, Repeated


class Said(PromptFamily):
    """Repeated tokens with a fact; the answer is how the block goes on."""

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        ids = Repeated(seed=self.seed, block=10, times=3).prompt(index, tokenizer).token_ids
        facts = {"length": 20 + index % 2, "depth": 0.5}
        return Prompt(ids[:-2], answer="x", answer_ids=ids[-2:], facts=facts)


class Chosen(Eval):
    """The same as a choice."""

    metric = "choice"
    source = licence = "none"

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        prompt = Said(seed=self.seed).prompt(index, tokenizer)
        return Item(prompt, wrong=((40, 41), (42,)))


class Running(Eval):
    """The same as running text."""

    metric = "tokens"
    source = licence = "none"

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        return Item(Said(seed=self.seed).prompt(index, tokenizer), buckets=2)


class Spanned(Eval):
    """A choice behind a prompt with a marked span, another one in each question."""

    metric = "choice"
    source = licence = "none"

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        prompt = Said(seed=self.seed).prompt(index, tokenizer)
        spans = {"marked": (index, index + 4)}
        return Item(dataclasses.replace(prompt, spans=spans), wrong=((40, 41), (42,)))


for name in ("said", "chosen", "running", "spanned"):
    PromptFamily.registry.pop(name, None)
    Eval.registry.pop(name, None)

TASKS = [given(Said(samples=7)), Chosen(7), Running(7)]
CHANGES = {
    "answer": Ablate(["L1H0", "L1H1", "L2H3"], part="answer"),
    "both": [Ablate(["L0H0"]), Ablate(["L2H0"], "uniform")],
}


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate(opened("llama"), TASKS, changes=CHANGES)


def test_every_condition_is_what_scoring_in_its_scope_gives(result: Evaluation) -> None:
    model = opened("llama")
    assert [c.label for c in result.conditions] == ["base", "answer", "both"]
    assert result.complete
    for task, measured in zip(TASKS, result.tasks, strict=True):
        item = task.items(model.tokenizer)[3]
        (base,) = scored(model, item)
        with CHANGES["answer"](model):
            (answer,) = scored(model, item)
        first, second = CHANGES["both"]
        with first(model), second(model):
            (both,) = scored(model, item)
        for index, want in enumerate((base, answer, both)):
            kept = measured.scores[index]
            assert kept.logp[3] == pytest.approx(want.logp, abs=1e-4)
            assert kept.exact[3] == want.exact
            if want.margin is not None:
                assert kept.margin[3] == pytest.approx(want.margin, abs=1e-4)
        value = {"answer": base.logp, "choice": base.margin, "tokens": base.logp / 2}
        assert measured.values(0)[3] == pytest.approx(value[task.metric], abs=1e-4)
        assert measured.per_token(0)[3] == pytest.approx(base.logp / 2, abs=1e-4)


def test_tables_hold_means_paired_changes_and_intervals(result: Evaluation) -> None:
    table = result.table().set_index(["task", "condition"])
    for measured in result.tasks:
        change = measured.values(1) - measured.values(0)
        row = table.loc[(measured.task, "answer")]
        assert row["change"] == pytest.approx(change.mean())
        assert row["change.low"] < change.mean() < row["change.high"]
        assert row["questions"] == 7
        assert np.isnan(row["exact"]) == (measured.metric == "tokens")
    assert table.loc[("chosen", "base"), "chance"] == pytest.approx(1 / 3)
    assert table.loc[("said", "base"), "gate"] == "floor"
    by = result.by("length")
    assert sorted(set(by["length"])) == [20, 21]
    assert by[by["condition"] == "base"].groupby("task")["questions"].sum().to_dict() == {
        "said": 7, "chosen": 7, "running": 7,
    }  # fmt: skip
    assert by["value.low"].isna().all()  # three or four questions allow no interval
    with pytest.raises(HeadscopeError, match="No question has the fact 'x'; there are depth"):
        result.by("x")
    curves = result.curves()
    assert set(curves["task"]) == {"running"}
    assert len(curves) == 2 * 3
    mean = curves[curves["condition"] == "base"]["value"].mean()
    assert mean == pytest.approx(result.tasks[2].values(0).mean(), abs=1e-6)


def test_one_sentence_for_each_change(result: Evaluation) -> None:
    claims = result.claims()
    assert len(claims) == 6
    assert "On 7 questions of said, answer takes right answers from 0.00" in claims[0]
    assert all("corrected for all" in claim for claim in claims)
    assert evaluate(opened("llama"), TASKS).claims() == []


def test_it_goes_on_where_it_stopped_and_ends_the_same(tmp_path: Path, result: Evaluation) -> None:
    path, model = tmp_path / "e.json", opened("llama")

    def stop(name: str, done: int, total: int) -> None:
        if (name, done) == ("chosen", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, TASKS, changes=CHANGES, out=path, progress=stop)
    assert [task.done for task in Evaluation.load(path).tasks] == [7, 3, 0]
    seen: list[tuple[str, int]] = []
    again = evaluate(
        model, TASKS, changes=CHANGES, out=path,
        progress=lambda name, done, total: seen.append((name, done)),
    )  # fmt: skip
    assert seen[:3] == [("said", 7), ("chosen", 3), ("chosen", 4)]
    assert again.tasks == result.tasks
    assert Evaluation.load(path) == again
    with pytest.raises(HeadscopeError, match="another evaluation"):
        evaluate(model, TASKS, out=path)
    with pytest.raises(HeadscopeError, match="another evaluation"):
        evaluate(opened("qwen2"), TASKS, changes=CHANGES, out=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": []}, "a condition and an eval"),
        ({"schema_version": 7}, "a newer headscope"),
        ({"kind": "validation"}, "damaged or no evaluation"),
        ({"extra": 1}, "damaged"),
    ],
)
def test_what_is_no_evaluation_is_refused(
    change: Any, message: str, tmp_path: Path, result: Evaluation
) -> None:
    path = result.save(tmp_path / "e.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HeadscopeError, match=message):
        Evaluation.load(path)
    path.write_text("{")
    with pytest.raises(HeadscopeError, match="damaged or no evaluation"):
        Evaluation.load(path)


def test_mistakes_are_one_sentence(llama: HeadModel) -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (["nedle"], {}, "no eval named 'nedle'. Did you mean needle"),
        ([], {}, "at least one eval"),
        ([TASKS[0]], {"samples": 0}, "at least one question"),
        ([Chosen(5)], {}, "at least 6"),
        ([Chosen(7), Chosen(8)], {}, "is there twice"),
        ([Chosen(7)], {"changes": {"x": Ablate(["L9H0"])}}, "has no head L9H0"),
        (["perplexity"], {"lengths": (400,)}, "do not fit into"),
    ]
    for tasks, options, message in cases:
        with pytest.raises(HeadscopeError, match=message):
            evaluate(llama, tasks, **options)


def test_interventions_are_typed_and_described_alike(llama: HeadModel) -> None:
    text = "ablate:heads=L1H0+L2H3,mode=zero,part=answer"
    (method,) = parsed(text, llama)
    assert method == Ablate([(1, 0), (2, 3)], part="answer")
    assert described(method) == text
    first, second = parsed("ablate:heads=L1H0 & ablate:heads=L2H0,mode=uniform", llama)
    assert isinstance(first, Ablate)
    assert isinstance(second, Ablate)
    assert (first.heads, second.mode) == (((1, 0),), "uniform")
    for text in ("pasta:span=3:9,part=all,alpha=0.5", "pasta:span=1:2+4:6,part=all,alpha=0.1"):
        (steered,) = parsed(text, llama)
        assert described(steered) == text
    assert parsed("pasta:span=needle", llama) == [Pasta("needle")]
    for bad, message in (
        ("pasta:span=9:3", "holds no token"),
        ("ablte:heads=L1H0", "no intervention named 'ablte'"),
        ("ablate:head=L1H0", "sets nothing that ablate has"),
        ("ablate:heads", "sets nothing that ablate has"),
        ("ablate", "lacks heads"),
        ("ablate:heads=L9H0", "has no head L9H0"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            parsed(bad, llama)
    assert headscope.evaluate is evaluate


def test_named_spans_and_prompts_are_each_questions_own(llama: HeadModel) -> None:
    """Each change is measured as its own method in its own scope on its own prompt."""
    items = [Spanned(seed=3).item(index, llama.tokenizer) for index in range(7)]
    changes = {"steered": Pasta("marked"), "more": [AddSink(2, token=5), InstaBoost("marked")]}
    found = evaluate(llama, [Spanned(7, seed=3)], changes=changes)
    for index, item in enumerate(items):
        start, stop = item.prompt.span("marked")
        with Pasta((start, stop))(llama):
            want = scored(llama, item)[0]
        assert found.tasks[0].scores[1].margin[index] == pytest.approx(want.margin, abs=1e-4)
        ids = (5, 5, *item.prompt.token_ids)
        longer = dataclasses.replace(item, prompt=dataclasses.replace(item.prompt, token_ids=ids))
        with InstaBoost((start + 2, stop + 2))(llama):
            want = scored(llama, longer)[0]
        assert found.tasks[0].scores[2].margin[index] == pytest.approx(want.margin, abs=1e-4)
    with pytest.raises(HeadscopeError, match="no span named 'elsewhere'"):
        evaluate(llama, [Spanned(7)], changes={"x": Pasta("elsewhere")})


def test_what_is_not_causal_is_read_as_generate_reads_it(llama: HeadModel) -> None:
    """An answer of several tokens behind a prefill, one at a time; each choice anew."""
    method = ACT(threshold=0.08, beta=0.0, skip=0)
    found = evaluate(llama, [Chosen(7, seed=2)], changes={"act": method})
    item = Chosen(seed=2).item(0, llama.tokenizer)
    said = []
    for answer in (item.prompt.answer_ids, *item.wrong):
        cache, ids, logp = llama.new_cache(), list(item.prompt.token_ids), 0.0
        with method(llama):
            logits = llama(ids, cache=cache, prompt_length=len(ids), last=1)[0, -1]
            for token in answer:
                logp += float(logits.log_softmax(-1)[token])
                logits = llama([token], cache=cache, prompt_length=len(ids))[0, -1]
        said.append(logp)
    want = said[0] - float(np.logaddexp.reduce(said[1:]))
    assert found.tasks[0].scores[1].margin[0] == pytest.approx(want, abs=1e-4)
    assert found.tasks[0].scores[0].margin[0] != pytest.approx(want, abs=1e-3)


def test_trained_things_of_a_kind_are_told_apart(llama: HeadModel) -> None:
    """An evaluation with other directions is another one, and does not go on from a file."""
    some = Directions.train(llama, _golden(4), ["L1H2"], epochs=1)
    one, same, other = (described(FocusDirections(d)) for d in (some, some, some.random()))
    assert one == same
    assert one != other
    assert "directions=directions#" in one


def _golden(count: int) -> list[Prompt]:
    prompts = Said(samples=count).prompts(opened("llama").tokenizer)
    return [dataclasses.replace(prompt, spans={"gold": (2, 6)}) for prompt in prompts]
