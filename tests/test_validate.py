"""Forced answers and validations against random heads."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import opened
from organisms import rope_organism

import headscope
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.choosing import needles_for, target_evals
from headscope.evals.effects import Effects, effects
from headscope.evals.given import given
from headscope.evals.measured import digest
from headscope.evals.scoring import scored
from headscope.evals.validate import validate
from headscope.evals.validation import Validation
from headscope.model import HeadModel
from headscope.probes.induction import Induction
from headscope.probes.previous_token import PreviousToken
from headscope.prompts import Jsonl, Needle, Prompt, PromptFamily, Repeated


class Echo(PromptFamily):
    """Repeated tokens; the answer is how the block goes on."""

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        ids = Repeated(seed=self.seed, block=20, times=3).prompt(index, tokenizer).token_ids
        return Prompt(ids[:-4], answer="x", answer_ids=ids[-4:])


PromptFamily.registry.pop("echo")


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
    assert result.p_values()["layer_matched.value"] == pytest.approx(1 / 11)
    assert "L" in result.claim()
    assert "too few" in result.claim()
    again = Validation.load(tmp_path / "v.json")
    assert again == result


@dataclass(frozen=True)
class Long(Echo):
    """The same with lengths, of which it has no need."""

    lengths: tuple[int, ...] = ()

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        whole = super().prompt(index, tokenizer)
        return dataclasses.replace(whole, token_ids=whole.token_ids[: self.lengths[index]])


PromptFamily.registry.pop("long")


def test_lengths_reach_the_prompts(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, head_map = organism
    options: dict[str, Any] = {"role": "induction", "k": 1, "controls": 0, "direction": "gain"}
    lengths = (20, 31, 22, 29, 30, 31)
    result = validate(model, head_map, prompts=Long(samples=6), lengths=lengths, **options)
    assert result.target.parameters["family"]["lengths"] == list(lengths)
    made = [Item(p) for p in Long(6, lengths=lengths).prompts(model.tokenizer)]
    assert result.target.digests == [digest(item) for item in made]
    with pytest.raises(HeadscopeError, match="have lengths of their own"):
        validate(model, head_map, prompts=Echo(samples=6), lengths=[20], **options)


def test_what_cannot_be_tested_is_refused(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, head_map = organism
    with pytest.raises(HeadscopeError, match=r"has 32 heads in all, so its top 33 cannot"):
        validate(model, head_map, role="induction", k=33, prompts=Echo(samples=6))
    ids = tuple(range(3, 13)) * (model.context_length // 10)
    long = Prompt(ids, answer="x", answer_ids=ids[:20])
    with pytest.raises(HeadscopeError, match="do not fit"):
        validate(model, ["L0H0"], prompts=Given(samples=1, given=long))


@dataclass(frozen=True)
class Given(PromptFamily):
    """One prompt."""

    given: Prompt = field(default_factory=lambda: Prompt(()))

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        return self.given


PromptFamily.registry.pop("given")


def test_useless_heads_are_not_claimed(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, head_map = organism
    worst = head_map.to_pandas().sort_values("induction").head(2)
    heads = list(zip(worst["layer"], worst["head"], strict=True))
    result = validate(model, heads, controls=19, prompts=Echo(samples=6, seed=9))
    assert "not significantly" in result.claim()


def test_a_validation_goes_on_where_it_stopped(
    organism: tuple[HeadModel, headscope.HeadMap], tmp_path: Path
) -> None:
    model, head_map = organism

    def run(**options: Any) -> Validation:
        return validate(
            model, head_map, role="induction", k=2, controls=2, prompts=Echo(samples=6, seed=9),
            out=tmp_path / "v.json", **options,
        )  # fmt: skip

    def stop(name: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    assert Validation.load(tmp_path / "v.json").done == 4
    seen: list[int] = []
    result = run(progress=lambda name, done, total: seen.append(done))
    assert seen == [4, 5, 6]
    whole = validate(
        model, head_map, role="induction", k=2, controls=2, prompts=Echo(samples=6, seed=9)
    )
    assert [s.logp for s in whole.target.scores] == [s.logp for s in result.target.scores]
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
    refused: list[dict[str, Any]] = [{"samples": 0}, {"samples": 3}, {"seed": -1}]
    refused += [{"controls": -1}, {"controls": 100}, {"doses": (2,)}]
    for bad in refused:
        with pytest.raises(HeadscopeError):
            validate(model, ["L0H1"], **bad)


def needles(path: Path, spans: bool, code: int = 31) -> Path:
    """Prompts of single words that the organism's tokenizer knows, with or without spans."""
    lines: list[dict[str, Any]] = [
        {"text": f"w{code + i} w40 w41", "spans": {"needle": f"w{code + i}"}, "answer": " w42"}
        for i in range(6)
    ]
    path.write_text("\n".join(json.dumps(x if spans else x | {"spans": {}}) for x in lines))
    return path


def test_prompts_without_their_spans_are_the_same_prompts(tmp_path: Path) -> None:
    model = opened("llama")
    found = headscope.scan(model, ["previous_token"], prompts=needles(tmp_path / "a", True))
    bare = Jsonl(path=str(needles(tmp_path / "b", False)))
    with pytest.raises(HeadscopeError, match="used to find the heads"):
        validate(model, found, role="previous_token", k=1, prompts=bare)
    other = Jsonl(path=str(needles(tmp_path / "c", False, code=61)))
    options: dict[str, Any] = {"role": "previous_token", "k": 1, "direction": "gain"}
    assert validate(model, found, controls=1, prompts=other, **options).done == 6
    for change in (lambda: needles(tmp_path / "a", True, 70), (tmp_path / "a").unlink):
        change()
        with pytest.raises(HeadscopeError, match="not there any more as it was"):
            validate(model, found, role="previous_token", k=1, prompts=bare)


def test_generated_prompts_that_were_written_to_a_file_are_the_same_prompts(
    smollm2: HeadModel, tmp_path: Path
) -> None:
    family = Needle(samples=1, lengths=(256,))
    found = headscope.scan(smollm2, [PreviousToken(prompts=family)])
    seen = family.prompt(0, smollm2.tokenizer)
    line = {"text": smollm2.tokenizer.decode(seen.token_ids), "answer": " 12"}
    (tmp_path / "p").write_text(json.dumps(line))
    own = Jsonl(path=str(tmp_path / "p"))
    with pytest.raises(HeadscopeError, match="used to find the heads"):
        validate(smollm2, found, role="previous_token", k=1, prompts=own)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (Prompt((5,) * 125, answer="x", answer_ids=(4, 5, 6, 7)), "do not fit into"),
        (Prompt((3, 4, 5)), "expects no answer"),
        (Prompt((3, 4, 97), answer="x", answer_ids=(4,)), "knows those below 97"),
    ],
)
def test_every_prompt_is_checked_before_the_first_pass(
    last: Prompt, message: str, tmp_path: Path
) -> None:
    class Mixed(Echo):
        def prompt(self, index: int, tokenizer: Any) -> Prompt:
            return last if index == 2 else super().prompt(index, tokenizer)

    PromptFamily.registry.pop("mixed")
    passes: list[int] = []
    model = opened("llama")
    with (
        model.observed(lambda a: passes.append(1)),
        pytest.raises(HeadscopeError, match=f"Question 3 of mixed.*{message}"),
    ):
        validate(model, ["L0H1"], prompts=Mixed(samples=6), out=tmp_path / "v.json")
    assert not passes
    assert not list(tmp_path.iterdir())


def test_needles_that_do_not_fit_are_left_out(smollm2: HeadModel) -> None:
    room = smollm2.context_length
    try:
        for context, lengths in ((8192, (256, 512, 768, 1024)), (1024, (256, 512, 768))):
            smollm2.context_length = context
            family = needles_for(smollm2, samples=4)
            assert family.lengths == lengths
            assert family.split == "test"
        smollm2.context_length = 250
        with pytest.raises(
            HeadscopeError, match="No needle of 256 tokens or more fits into the 250"
        ):
            needles_for(smollm2)
    finally:
        smollm2.context_length = room


def test_as_many_controls_as_there_are(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    """One head of eight in its layer has seven layer-matched controls, too few for p <= 0.05."""
    model, _ = organism
    result = validate(model, ["L0H1"], controls=19, prompts=Echo(samples=6, seed=9))
    assert result.table().set_index("condition")["sets"].to_dict() == {
        "base": 1, "tested": 1, "uniform": 19, "layer_matched": 7,
    }  # fmt: skip
    assert "7 layer-matched control sets are too few to add to that" in result.claim()
    alone = validate(model, ["L0H1"], controls=0, prompts=Echo(samples=6, seed=9))
    assert "too few to say" in alone.claim()
    assert "(" not in alone.claim().split("nats")[0].split("questions")[1]


def test_references_fit_the_context(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, _ = organism
    result = validate(model, ["L0H1"], controls=1, mode="mean", prompts=Echo(samples=6, seed=9))
    assert result.done == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": []}, "one unablated"),
        ({"schema_version": 9}, "a newer headscope"),
        ({"schema_version": 1}, "an older headscope"),
        ({"seed": -2}, "greater than or equal to 0"),
        ({"tasks": []}, "lacks the evals"),
        ({"targets": 2}, "lacks the evals"),
    ],
)
def test_a_validation_that_contradicts_itself_is_damaged(
    organism: tuple[HeadModel, headscope.HeadMap], tmp_path: Path, change: Any, message: str
) -> None:
    model, _ = organism
    path = tmp_path / "v.json"
    validate(model, ["L0H1"], controls=1, prompts=Echo(samples=6, seed=9), out=path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HeadscopeError, match=message):
        Validation.load(path)


def test_what_leaves_no_room_for_a_change_is_refused(
    organism: tuple[HeadModel, headscope.HeadMap],
) -> None:
    model, head_map = organism
    with pytest.raises(HeadscopeError, match=r"every question right of the 6 of echo .* a gain"):
        validate(model, head_map, role="induction", prompts=Echo(6, seed=9), direction="gain")
    with pytest.raises(HeadscopeError, match=r"no question right of the 6 of echo .* a drop"):
        validate(opened("llama"), ["L0H1"], prompts=Echo(6, seed=9))


def test_an_eval_is_tested_or_spared(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    model, _ = organism
    with pytest.raises(HeadscopeError, match="perplexity cannot be both tested and spared"):
        validate(model, ["L0H1"], tasks=["perplexity"], spared=["perplexity"])


def test_doses_and_spared_evals(organism: tuple[HeadModel, headscope.HeadMap]) -> None:
    """Two heads are planted, which share the work."""
    model, head_map = organism
    result = validate(
        model, head_map, role="induction", k=2, doses=[1, 4, 2], controls=20, dose_controls=5,
        prompts=Echo(samples=6, seed=9), spared=[Foretold(6)], part="answer",
    )  # fmt: skip
    doses = result.doses().set_index("k")
    assert list(doses.index) == [1, 2, 4]
    assert doses["confirmatory"].to_dict() == {1: False, 2: True, 4: False}
    assert doses["uniform.sets"].to_dict() == {1: 5, 2: 20, 4: 5}
    assert doses.loc[2, "change"] < doses.loc[1, "change"] < 0
    assert doses.loc[2, "uniform.p"] == pytest.approx(1 / 21)
    spared = result.doses(1).set_index("k")
    assert spared["uniform.sets"].to_dict() == {1: 0, 2: 20, 4: 0}
    table = result.specificity().set_index("task")
    assert table.loc["echo", "verdict"] == "more than random heads"
    assert table.loc["echo", "beyond.high"] < 0
    # The planted heads speak where there is no copy too: without them random tokens are likelier.
    assert table.loc["foretold", "verdict"] == "not spared"
    assert table.loc["foretold", "change.low"] > 1
    assert len(result.claims()) == 2
    assert "it is not spared" in result.claims()[1]
    item = Item(Echo(samples=6, seed=9).prompt(2, model.tokenizer))
    with headscope.Ablate(result.tested, part="answer")(model):
        (want,) = scored(model, item)
    assert result.target.scores[1].logp[2] == pytest.approx(want.logp, abs=1e-4)


class Foretold(Eval):
    """The first tokens of a random block, which no head can know."""

    metric = "tokens"
    source = licence = "none"

    def item(self, index: int, tokenizer: Any) -> Item:
        ids = Echo(seed=self.seed + 50).prompt(index, tokenizer).token_ids
        return Item(Prompt(ids[:3], answer="x", answer_ids=ids[3:9]))


Eval.registry.pop("foretold")


def test_a_head_alone_is_found_among_all(
    organism: tuple[HeadModel, headscope.HeadMap], tmp_path: Path
) -> None:
    model, head_map = organism
    task = given(Echo(samples=12, seed=9))
    found = effects(model, task, part="answer", out=tmp_path / "e.json")
    table = found.table().set_index("name")
    assert len(table) == len(head_map.to_pandas())
    planted = set(head_map.top("induction", 2)["name"])
    assert planted & {name for name, q in table["q"].items() if q <= 0.05}
    assert set(table.index[:1]) <= planted
    assert (table["q"] >= table["p"]).all()
    assert "false discovery rate of 0.05" in found.claim()
    assert Effects.load(tmp_path / "e.json") == found
    assert effects(model, task, part="answer", out=tmp_path / "e.json") == found
    with pytest.raises(HeadscopeError, match="other effects"):
        effects(model, task, part="all", out=tmp_path / "e.json")


def test_own_prompts_may_be_named_by_their_file(llama: HeadModel) -> None:
    by_path = target_evals(llama, None, Path("mine.jsonl"), 3, None, 0)
    assert by_path == target_evals(llama, None, Jsonl(path="mine.jsonl"), 3, None, 0)
