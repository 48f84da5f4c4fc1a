"""DAGCD against its formula, written out once more over dense patterns."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from conftest import opened
from torch import Tensor
from torch.testing import assert_close

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.prefix import Prefix
from headscope.evals.scoring import scored
from headscope.interventions.attention_buckets import AttentionBuckets
from headscope.interventions.context_attention import context_of
from headscope.interventions.dagcd import Dagcd
from headscope.interventions.snap_kv import SnapKV
from headscope.interventions.trained import facts_of
from headscope.interventions.utilization_detector import DetectorFacts, UtilizationDetector
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

PROMPT = 14
# Few kinds of tokens, so that some stand in the context twice.
TOKENS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(8))
TOKENS[:, 4], TOKENS[:, 9] = TOKENS[:, 6], TOKENS[:, 7]
PADDED = torch.ones_like(TOKENS)
PADDED[0, :3] = 0
CONTEXT = ((1, 6), (7, 10))
HEADS = ((0, 1), (1, 4), (1, 5), (2, 0))


def detector(model: HeadModel, bias: float = -0.1, **changes: Any) -> UtilizationDetector:
    known = {"heads": HEADS, "accuracy": 0.9, "stop_ids": tuple(sorted(model.stop_ids))}
    facts = DetectorFacts(**facts_of(model) | known | changes)
    return UtilizationDetector(torch.tensor([1.0, 2.0, -0.5, 1.5]), bias, facts)


def method(model: HeadModel, **options: Any) -> Dagcd:
    given = {"detector": detector(model), "context": CONTEXT, "alpha": 3.0, "top_rank": 40}
    return Dagcd(**given | options)


def by_hand(model: HeadModel, ids: list[int], start: int, made: Dagcd) -> np.ndarray:
    """p' of one sequence without padding, row by row."""
    patterns: dict[int, Tensor] = {}

    def keep(attended: Attended) -> None:
        patterns[attended.attention.layer] = oracle.dense(attended.attention).pattern[0]

    with model.observed(keep):
        logits = model(ids)[0].double().numpy()
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    places = [i for a, z in made.context for i in range(a, z)]
    for row in range(start - 1, len(ids)):
        if int(p[row].argmax()) in made.detector.facts.stop_ids:
            continue
        ratio: dict[int, list[float]] = {}
        for layer, head in made.detector.heads:
            each = {
                token: np.mean([float(patterns[layer][head, row, i]) for i in places
                                if ids[i] == token])
                for token in {ids[i] for i in places}
            }  # fmt: skip
            for token, value in each.items():
                ratio.setdefault(token, []).append(value / max(sum(each.values()), 1e-300))
        score = np.zeros(p.shape[1])
        weights = made.detector.weights.double().numpy()
        for token, values in ratio.items():
            rank = 1 + int((p[row] > p[row, token]).sum())
            found = float(weights @ np.array(values))
            if found + made.detector.bias > 0 and rank <= made.top_rank:
                score[token] = max(found, 0)
        if score.sum() > 0:
            entropy = -(p[row] * np.log(p[row])).sum() / np.log(len(score))
            p[row] += made.alpha * entropy * score / score.sum()
            p[row] /= p[row].sum()
    return p


def steps(model: HeadModel, mask: Tensor = PADDED) -> Tensor:
    """A prefill, a chunk of two tokens, and one token at a time."""
    cache, parts, held = model.new_cache(), [], 0
    length = mask[:, :PROMPT].sum(1)
    for width in (PROMPT, 2, 1, 1, 1, 1):
        ids, stop = TOKENS[:, held : held + width], held + width
        given: dict[str, Any] = {"attention_mask": mask[:, :stop], "prompt_length": length}
        parts.append(model(ids, cache=cache, **given))
        held = stop
    return torch.cat(parts, 1)


def rows() -> Iterator[tuple[int, int]]:
    yield from ((0, 3), (1, 0))


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_it_equals_its_formula_at_once_and_in_steps(backend: str) -> None:
    model = opened("llama", backend)
    made = method(model)
    plain = model(TOKENS, attention_mask=PADDED).softmax(-1)
    with made(model):
        length = PADDED[:, :PROMPT].sum(1)
        whole = model(TOKENS, attention_mask=PADDED, prompt_length=length)
        some = model(TOKENS, attention_mask=PADDED, prompt_length=length, last=4)
        found = steps(model)
    for b, first in rows():
        want = torch.tensor(by_hand(model, TOKENS[b, first:].tolist(), PROMPT - first, made))
        assert_close(whole[b, first:].softmax(-1).double(), want, atol=1e-5, rtol=1e-4)
        assert_close(found[b, first:].softmax(-1).double(), want, atol=1e-5, rtol=1e-4)
        changed = (want - plain[b, first:].double()).abs().amax(-1) > 1e-3
        assert not changed[: PROMPT - first - 1].any()
        assert changed[PROMPT - first - 1 :].sum() >= 3
    assert_close(some, whole[:, -4:])


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "mistral"])
def test_other_architectures(name: str) -> None:
    model = opened(name)
    made = method(model)
    with made(model):
        found = model(TOKENS, prompt_length=PROMPT).softmax(-1).double()
    for b in range(2):
        want = torch.tensor(by_hand(model, TOKENS[b].tolist(), PROMPT, made))
        assert_close(found[b], want, atol=1e-5, rtol=1e-4)


def test_tokens_that_cannot_gain_keep_their_logits() -> None:
    model = opened("llama")
    plain = model(TOKENS)
    with method(model)(model):
        found = model(TOKENS, prompt_length=PROMPT)
    where = torch.zeros(97, dtype=torch.bool)
    for b in range(2):
        where[TOKENS[b, 1:10]] = True
        assert torch.equal(found[b][:, ~where], plain[b][:, ~where])
        assert bool((found[b] >= plain[b]).all())
        where[:] = False
    assert torch.equal(found[:, : PROMPT - 1], plain[:, : PROMPT - 1])


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_generation_goes_as_step_by_step(backend: str) -> None:
    model = opened("llama", backend)
    made = method(model)
    ids, mask = TOKENS[:, :PROMPT], PADDED[:, :PROMPT]
    length = mask.sum(1)
    plain = model.generate(ids, attention_mask=mask, max_new_tokens=5)
    with made(model):
        found = model.generate(ids, attention_mask=mask, max_new_tokens=5)
        for _ in range(5):
            logits = model(ids, attention_mask=mask, prompt_length=length, last=1)
            new = logits[:, 0].argmax(-1, keepdim=True)
            new[(ids[:, PROMPT:] == 2).any(1)] = 0
            ids, mask = torch.cat((ids, new), 1), torch.cat((mask, torch.ones_like(new)), 1)
    assert torch.equal(found, ids[:, PROMPT:])
    assert not torch.equal(found, plain)


def test_beams_and_drafts() -> None:
    model, ids = opened("llama"), TOKENS[:1, :PROMPT]
    with method(model)(model):
        beams = model.generate(ids, num_beams=3, max_new_tokens=5)
        again = model.generate(ids, num_beams=3, max_new_tokens=5, use_cache=False)
        drafted = model.generate(ids, prompt_lookup_num_tokens=3, max_new_tokens=8)
        greedy = model.generate(ids, max_new_tokens=8)
    assert torch.equal(beams, again)
    assert torch.equal(drafted, greedy)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"detector": "stops"}, {"detector": "none"}])
def test_no_ops_are_bit_exact(options: dict[str, Any]) -> None:
    model = opened("llama")
    kinds = {"stops": {"stop_ids": tuple(range(97))}, "none": {"bias": -1e9}}
    if "detector" in options:
        options = {"detector": detector(model, **kinds[options["detector"]])}
    with model.entered(lambda attention, attend: attend(attention)):
        plain = steps(model)
    with dataclasses.replace(method(model), **options)(model):
        assert torch.equal(steps(model), plain)


def test_the_model_is_left_as_it_was() -> None:
    model = opened("llama")
    plain = model(TOKENS)

    def fails(attention: Any, attend: Any) -> Any:
        if attention.layer == 1:
            raise RuntimeError("in between")
        return attend(attention)

    error = pytest.raises(RuntimeError, match="in between")
    with error, method(model)(model), model.entered(fails):
        model(TOKENS, prompt_length=PROMPT)
    assert torch.equal(model(TOKENS), plain)


def test_keys_that_were_given_up_get_nothing() -> None:
    model = opened("llama")
    with method(model)(model), SnapKV(capacity=6, window=2)(model):
        found = steps(model, torch.ones_like(TOKENS))
    with SnapKV(capacity=6, window=2)(model):
        plain = steps(model, torch.ones_like(TOKENS))
    assert bool(found.isfinite().all())
    assert bool((found[:, PROMPT:] != plain[:, PROMPT:]).any())


def test_several_answers_are_scored_from_a_shared_prompt_as_one_by_one() -> None:
    model, ids = opened("llama"), TOKENS[0].tolist()
    prompt = Prompt(tuple(ids[:PROMPT]), {"doc_0": (1, 6), "doc_1": (7, 10)}, "", tuple(ids[14:17]))
    wrong = (tuple(ids[4:7]), (5,))
    made, same = method(model, context=None).prepared(model, prompt)
    assert isinstance(made, Dagcd)
    assert made.context == CONTEXT
    assert same is prompt
    prefix = Prefix.of(model, prompt)
    with made(model):
        shared = scored(model, Item(prompt, wrong=wrong), None, prefix)[0]
        stepped = scored(model, Item(prompt, wrong=wrong, chunk=1))[0]
    right, *others = (
        sum(
            np.log(by_hand(model, [*ids[:PROMPT], *answer], PROMPT, made)[PROMPT - 1 + i, token])
            for i, token in enumerate(answer)
        )
        for answer in (prompt.answer_ids, *wrong)
    )
    assert shared.logp == pytest.approx(right, abs=1e-3)
    assert shared.margin == pytest.approx(right - np.logaddexp(*others), abs=1e-3)
    assert stepped.margin == pytest.approx(shared.margin, abs=1e-3)


def test_buckets_are_scored_in_steps_as_at_once() -> None:
    model, ids = opened("llama"), TOKENS[0].tolist()
    prompt, made = Prompt(tuple(ids[:PROMPT]), {}, "", tuple(ids[14:17])), AttentionBuckets()
    assert made.stepwise
    with made(model):
        logp = model(ids[:16])[0, PROMPT - 1 :].log_softmax(-1)
        want = float(logp.gather(1, torch.tensor(ids[14:17])[:, None]).sum())
        found = scored(model, Item(prompt, wrong=((5, 6),), chunk=1))[0]
    assert found.logp == pytest.approx(want, abs=1e-3)


def taught(model: HeadModel, count: int) -> list[Prompt]:
    """Prompts whose answer is a token of the context that the model itself says."""
    found = list[Prompt]()
    generator = torch.Generator().manual_seed(1)
    while len(found) < count:
        ids = torch.randint(3, 97, (20,), generator=generator).tolist()
        said = int(model(ids, last=1)[0, 0].argmax())
        if said in ids[1:15]:
            found.append(Prompt(tuple(ids), {"context": (1, 15)}, "", (said,)))
    return found


def test_training_finds_what_tells_used_tokens_apart(tmp_path: Path) -> None:
    model = opened("llama")
    prompts = taught(model, 24)
    found = UtilizationDetector.train(model, prompts, count=4)
    assert len(set(found.heads)) == 4
    assert 0.5 < found.facts.accuracy <= 1
    again = UtilizationDetector.train(model, prompts, count=4)
    assert torch.equal(found.weights, again.weights)
    path = found.save(tmp_path / "detector.safetensors")
    kept = UtilizationDetector.load(path)
    assert torch.equal(kept.weights, found.weights)
    assert kept.bias == found.bias
    assert kept.facts == found.facts  # model, heads, accuracy and stop_ids
    options = Dagcd.completed({"detector": str(path), "context": CONTEXT, "top_rank": 40}, model)
    loaded, own = Dagcd(**options), Dagcd(found, CONTEXT, top_rank=40)
    with loaded(model):
        one = steps(model)
    with own(model):
        assert torch.equal(steps(model), one)


def test_training_needs_answers_that_the_model_says() -> None:
    model = opened("llama")
    prompts = [
        dataclasses.replace(prompt, answer_ids=(prompt.answer_ids[0] % 90 + 4,))
        for prompt in taught(model, 6)
    ]
    with pytest.raises(HeadscopeError, match="on more prompts"):
        UtilizationDetector.train(model, prompts)


def test_files_that_hold_no_detector_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(HeadscopeError, match="cannot be read"):
        UtilizationDetector.load(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"not a file of tensors")
    with pytest.raises(HeadscopeError, match="damaged"):
        UtilizationDetector.load(tmp_path / "bad")
    save_file({"weights": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(HeadscopeError, match="no utilization detector"):
        UtilizationDetector.load(tmp_path / "other")


def test_a_detector_of_another_model_is_refused_naming_both() -> None:
    model, other = opened("llama"), opened("qwen3")
    made = method(model, detector=detector(other, model_name="first-model"))
    with pytest.raises(HeadscopeError, match=f"first-model .* this is {model.name}"), made(model):
        pass


@pytest.mark.parametrize(("options", "why"), [
    ({"alpha": -1.0}, "alpha"), ({"alpha": float("nan")}, "alpha"), ({"top_rank": 0}, "top_rank"),
    ({"context": (4, 4)}, "holds no token"),
])  # fmt: skip
def test_bad_parameters_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(HeadscopeError, match=why):
        method(opened("llama"), **options)


def test_a_context_that_is_not_there_is_refused() -> None:
    model, plain = opened("llama"), Prompt((5, 6, 7, 8))
    with pytest.raises(HeadscopeError, match="marks none"):
        method(model, context=None).prepared(model, plain)
    with pytest.raises(HeadscopeError, match="no span named 'facts'"):
        method(model, context="facts").prepared(model, plain)
    for context, why in (
        (None, "where the context stands"),
        ("doc", "by name"),
        ((2, 15), "inside"),
    ):
        with pytest.raises(HeadscopeError, match=why), method(model, context=context)(model):
            model(TOKENS, prompt_length=PROMPT)
    with pytest.raises(HeadscopeError, match="pass prompt_length="), method(model)(model):
        model(TOKENS)


def test_the_context_is_found_by_the_spans_that_prompts_have() -> None:
    def found(**spans: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        return context_of(Prompt(tuple(range(30)), spans), None, "A test")

    assert found(context=(2, 9), doc_0=(2, 4)) == ((2, 9),)
    assert found(doc_0=(2, 4), doc_1=(5, 8), question=(9, 12)) == ((2, 4), (5, 8))
    assert found(pair_0=(3, 5), user=(1, 20)) == ((3, 5),)
    assert found(user=(4, 20), question=(12, 20)) == ((4, 12),)
    assert found(question=(12, 20)) == ((1, 12),)
