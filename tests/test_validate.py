"""Forced answers and validations against random heads."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import opened
from organisms import rope_organism

import headscope
from headscope.errors import HeadscopeError
from headscope.evals.forced import forced_answer, prefilled
from headscope.evals.validate import validate
from headscope.evals.validation import Validation
from headscope.model import HeadModel
from headscope.probes.induction import Induction
from headscope.prompts import Prompt, PromptFamily, Repeated


class Echo(PromptFamily):
    """Repeated tokens; the answer is how the block goes on."""

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        ids = Repeated(seed=self.seed, block=20, times=3).prompt(index, tokenizer).token_ids
        return Prompt(ids[:-4], answer="x", answer_ids=ids[-4:])


PromptFamily.registry.pop("echo")


def test_forced_answers_equal_the_sum_of_single_steps(llama: HeadModel) -> None:
    prompt = Echo(samples=1).prompt(0, llama.tokenizer)
    logits = llama(list(prompt.token_ids + prompt.answer_ids)).log_softmax(-1)[0]
    n = len(prompt)
    want = sum(float(logits[n - 1 + i, t]) for i, t in enumerate(prompt.answer_ids))
    found = forced_answer(llama, prompt)
    assert found.logp == pytest.approx(want, abs=1e-3)
    cache = prefilled(llama, prompt)
    for _ in range(2):  # the cache is left as it was found
        assert forced_answer(llama, prompt, cache).logp == pytest.approx(want, abs=1e-3)
    with pytest.raises(HeadscopeError, match="expects no answer"):
        forced_answer(llama, Prompt((3, 4)))


@pytest.fixture(scope="module")
def organism() -> tuple[HeadModel, headscope.HeadMap]:
    made = rope_organism(0)
    model = headscope.load(made.hf, made.tokenizer)
    found = headscope.scan(model, [Induction(prompts=Repeated(block=20, times=3))], samples=4)
    return model, found


@pytest.mark.parametrize("part", ["all", "answer"])
def test_planted_heads_matter_and_random_ones_do_not(
    organism: tuple[HeadModel, headscope.HeadMap], part: Any, tmp_path: Path
) -> None:
    model, head_map = organism
    result = validate(
        model, head_map, role="induction", k=2, controls=10, part=part,
        prompts=Echo(samples=6, seed=9), out=tmp_path / "v.json",
    )  # fmt: skip
    table = result.table().set_index("condition")
    assert table.loc["base", "exact"] == 1
    assert table.loc["tested", "exact"] <= 0.2
    assert table.loc["uniform", "exact"] >= 0.7
    assert max(result.p_values().values()) <= 0.2
    assert result.p_values()["layer_matched.logp"] == pytest.approx(1 / 11)
    assert "L" in result.claim()
    assert "too few" in result.claim()
    again = Validation.load(tmp_path / "v.json")
    assert again == result


def test_useless_heads_are_not_claimed(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, head_map = organism
    worst = head_map.to_pandas().sort_values("induction").head(2)
    heads = list(zip(worst["layer"], worst["head"], strict=True))
    result = validate(model, heads, controls=19, prompts=Echo(samples=4, seed=9))
    assert "not significantly" in result.claim()


def test_a_validation_goes_on_where_it_stopped(
    organism: tuple[HeadModel, headscope.HeadMap], tmp_path: Path
) -> None:
    model, head_map = organism

    def run(**options: Any) -> Validation:
        return validate(
            model, head_map, role="induction", k=2, controls=2, prompts=Echo(samples=4, seed=9),
            out=tmp_path / "v.json", **options,
        )  # fmt: skip

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    assert Validation.load(tmp_path / "v.json").done == 2
    seen: list[int] = []
    result = run(progress=lambda done, total: seen.append(done))
    assert seen == [2, 3, 4]
    whole = validate(
        model, head_map, role="induction", k=2, controls=2, prompts=Echo(samples=4, seed=9)
    )
    assert [c.logp for c in whole.conditions] == [c.logp for c in result.conditions]
    with pytest.raises(HeadscopeError, match="another validation"):
        run(mode="uniform")
    broken = json.loads((tmp_path / "v.json").read_text()) | {"mode": "melt"}
    (tmp_path / "v.json").write_text(json.dumps(broken))
    with pytest.raises(HeadscopeError, match="damaged"):
        run()


def test_detection_prompts_are_refused_for_the_test(
    organism: tuple[HeadModel, headscope.HeadMap],
) -> None:
    model, head_map = organism
    seen = Repeated(samples=4, seed=head_map.info.seed, block=20, times=3)
    with pytest.raises(HeadscopeError, match="used to find the heads"):
        validate(model, head_map, role="induction", prompts=seen)
    with pytest.raises(HeadscopeError, match="other weights"):
        validate(opened("llama"), head_map, role="induction")
    with pytest.raises(HeadscopeError, match="used to find the heads"):
        validate(model, ["L0H1"], found_on=head_map, prompts=seen)
    with pytest.raises(HeadscopeError, match="other weights"):
        validate(opened("llama"), ["L0H1"], found_on=head_map)
    with pytest.raises(HeadscopeError, match="at least one head"):
        validate(model, [])
    for bad in ({"samples": 0}, {"controls": -1}, {"seed": -1}):
        with pytest.raises(HeadscopeError):
            validate(model, ["L0H1"], **bad)


def test_as_many_controls_as_there_are(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    """One head of eight in its layer has seven layer-matched controls, too few for p <= 0.05."""
    model, _ = organism
    result = validate(model, ["L0H1"], controls=19, prompts=Echo(samples=2, seed=9))
    assert result.table().set_index("condition")["sets"].to_dict() == {
        "base": 1, "tested": 1, "uniform": 19, "layer_matched": 7,
    }  # fmt: skip
    assert "7 layer-matched control sets are too few to add to that" in result.claim()
    alone = validate(model, ["L0H1"], controls=0, prompts=Echo(samples=2, seed=9))
    assert "0 uniform control sets and 0 layer-matched" in alone.claim()
    assert "(" not in alone.claim().split("nats")[0].split("prompts")[1]


def test_references_fit_the_context(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, _ = organism
    result = validate(model, ["L0H1"], controls=1, mode="mean", prompts=Echo(samples=1, seed=9))
    assert result.done == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": []}, "one unablated"),
        ({"schema_version": 9}, "newer headscope"),
        ({"seed": -2}, "negative"),
        ({"digests": []}, "same prompts"),
    ],
)
def test_a_validation_that_contradicts_itself_is_damaged(
    organism: tuple[HeadModel, headscope.HeadMap], tmp_path: Path, change: Any, message: str
) -> None:
    model, _ = organism
    path = tmp_path / "v.json"
    validate(model, ["L0H1"], controls=1, prompts=Echo(samples=1, seed=9), out=path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HeadscopeError, match=message):
        Validation.load(path)
