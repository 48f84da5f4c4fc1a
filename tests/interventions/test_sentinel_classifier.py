"""The classifier of sentences: features, training and files."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from conftest import opened
from interventions.sentences import MODELS, classifier, dense, prompt
from numpy.testing import assert_allclose
from safetensors.numpy import save_file

from headscope.errors import HeadscopeError
from headscope.interventions.ranking_fit import GRID, within_auc
from headscope.interventions.sentinel import Sentinel
from headscope.interventions.sentinel_classifier import (
    SentinelClassifier,
    needle_sentence,
    sentence_features,
)
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


@pytest.mark.parametrize("architecture", MODELS)
def test_features_are_the_last_row_renormalised_within_the_sentences(architecture: str) -> None:
    model = opened(architecture)
    for seed in range(3):
        given_ = prompt(seed)
        last = dense(architecture, given_.token_ids)[:, :, -1].numpy()
        spans = given_.numbered("sentence")
        total = sum(last[..., start:stop].sum(-1) for start, stop in spans)
        want = np.zeros((5, *last.shape[:2]))
        for i, (start, stop) in enumerate(spans):
            for j in range(start, stop):
                want[i] += np.divide(last[..., j], total, where=total > 0, out=0 * total)
            want[i] /= stop - start
        assert_allclose(sentence_features(model, given_), want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_backends_agree_on_features(llama: HeadModel, backend: str) -> None:
    found = sentence_features(opened("llama", backend), prompt(0))
    assert_allclose(found, sentence_features(llama, prompt(0)), atol=1e-6, rtol=1e-4)


def test_features_of_a_row_that_sees_no_sentence_are_zero() -> None:
    far = dataclasses.replace(prompt(0), token_ids=(*prompt(0).token_ids, *range(3, 20)))
    assert not sentence_features(opened("mistral"), far).any()  # its window is 8 tokens


def test_features_come_in_the_order_of_the_sentences(llama: HeadModel) -> None:
    given_ = prompt(0)
    numbers = (3, 0, 4, 1, 2)
    spans = {f"sentence_{numbers[i]}": s for i, s in enumerate(given_.numbered("sentence"))}
    mixed = dataclasses.replace(given_, spans={**given_.spans, **spans})
    assert_allclose(sentence_features(llama, mixed), sentence_features(llama, given_))
    assert needle_sentence(mixed) == needle_sentence(given_) == 2


def test_a_trained_classifier_is_the_regression_it_says(llama: HeadModel) -> None:
    """The fit is where the gradient of the balanced, penalised loss is 0."""
    made = classifier()
    prompts = [prompt(seed, needle=seed % 5) for seed in range(10)]
    x = np.concatenate([sentence_features(llama, p) for p in prompts])
    y = np.concatenate([np.arange(5) == i % 5 for i in range(10)])
    if made.facts.scaled:
        assert_allclose(made.mean, x.mean(0))
        assert_allclose(made.scale, x.std(0))
    else:
        assert not made.mean.any()
        assert (made.scale == 1).all()
    weight = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum()))
    residual = weight * (made.probabilities(x) - y)
    gradient = np.tensordot(residual, (x - made.mean) / made.scale, 1)
    # scikit-learn stops at a gradient of 1e-4 of the mean over 50 sentences.
    assert_allclose(gradient + made.coefficients / made.facts.c, 0, atol=5e-3)
    assert residual.sum() == pytest.approx(0, abs=5e-3)
    assert (made.facts.scaled, made.facts.c) in GRID
    assert (made.facts.prompts, made.facts.sentences) == (10, 50)
    assert made.facts.layers == (0, 1, 2)


def test_training_finds_a_planted_sentence_and_not_one_that_is_not_there(llama: HeadModel) -> None:
    """A needle where attention goes most is found; one that was drawn blindly is at chance."""
    planted, drawn = list[Prompt](), list[Prompt]()
    for seed in range(40):
        looked = sentence_features(llama, prompt(seed))[:, 1, 3]
        planted.append(prompt(seed, needle=int(looked.argmax())))
        drawn.append(prompt(seed, needle=seed % 5))
    assert SentinelClassifier.train(llama, planted).facts.auc > 0.9
    # The best of ten settings at chance: 160 pairs of 0.5, whose mean has an error of about 0.05.
    assert SentinelClassifier.train(llama, drawn).facts.auc < 0.7


def test_auc_within_a_prompt() -> None:
    assert within_auc([0.1, 0.9, 0.3], 1) == 1
    assert within_auc([0.1, 0.9, 0.3], 0) == 0
    assert within_auc([0.1, 0.9, 0.3], 2) == 0.5
    assert within_auc([0.3, 0.9, 0.3], 0) == 0.25


def test_prompts_that_cannot_be_trained_on_are_refused(llama: HeadModel) -> None:
    good, one = [prompt(seed) for seed in range(5)], prompt(0)
    bare = {name: span for name, span in one.spans.items() if name != "needle"}
    elsewhere = {**one.spans, "needle": one.span("question")}
    single = {"sentence_0": one.span("sentence_2"), "needle": one.span("needle")}
    for prompts, message in (
        (good[:4], "5 prompts or more, not 4"),
        ([*good[:4], dataclasses.replace(one, spans=bare)], "no span named 'needle'"),
        ([*good[:4], dataclasses.replace(one, spans=elsewhere)], "one of which holds the span"),
        ([*good[:4], dataclasses.replace(one, spans=single)], "two sentences or more"),
        ([*good[:4], Prompt((3, 4, 5))], r"sentences of a prompt as its spans sentence_0"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            SentinelClassifier.train(llama, prompts)


def test_a_classifier_is_saved_whole_and_another_model_refused(
    llama: HeadModel, tmp_path: Any
) -> None:
    made = classifier()
    read = SentinelClassifier.load(made.save(tmp_path / "made.safetensors"))
    assert read.facts == made.facts
    assert read.intercept == made.intercept
    for name in ("coefficients", "mean", "scale"):
        assert np.array_equal(getattr(read, name), getattr(made, name)), name
    one, other = (Sentinel(classifier=each, budget=12) for each in (made, read))
    assert one.rewritten(llama, prompt(3)) == other.rewritten(llama, prompt(3))
    foreign = opened("qwen3")
    names = f"trained on {llama.name} .3 layers × 6 heads of 8., and this is {foreign.name} .3 × 6"
    with pytest.raises(HeadscopeError, match=names):
        other.rewritten(foreign, prompt(3))


def test_files_that_hold_no_classifier_are_refused(tmp_path: Any) -> None:
    path, made = tmp_path / "made.safetensors", classifier()
    with pytest.raises(HeadscopeError, match="cannot be read"):
        SentinelClassifier.load(path)
    whole = made.save(path).read_bytes()
    for content in (b"", whole[:-9], whole[: len(whole) // 9], b"no tensors"):
        path.write_bytes(content)
        with pytest.raises(HeadscopeError, match="is damaged"):
            SentinelClassifier.load(path)
    arrays = {
        "coefficients": made.coefficients, "mean": made.mean, "scale": made.scale,
        "intercept": np.zeros(1),
    }  # fmt: skip
    known = {"headscope": made.facts.model_dump_json()}
    other = {"headscope": made.facts.model_dump_json().replace("sentinel_cl", "another_cl")}
    for metadata in (None, {}, {"headscope": "{"}, other):
        save_file(arrays, path, metadata)
        with pytest.raises(HeadscopeError, match="holds no Sentinel classifier"):
            SentinelClassifier.load(path)
    for change in (
        {"mean": made.mean[:, :5].copy()},
        {"scale": np.zeros((3, 6))},
        {"more": np.zeros(1)},
    ):
        save_file({**arrays, **change}, path, known)
        with pytest.raises(HeadscopeError, match="numbers are not those of 3 layers × 6 heads"):
            SentinelClassifier.load(path)
    save_file({**arrays, "intercept": np.array([np.nan])}, path, known)
    with pytest.raises(HeadscopeError, match="not finite"):
        SentinelClassifier.load(path)
    save_file(arrays, path, known)
    assert SentinelClassifier.load(path).facts == made.facts


def test_a_classifier_is_loaded_for_the_command_line(llama: HeadModel, tmp_path: Any) -> None:
    from headscope.evals.describing import parsed

    path = classifier().save(tmp_path / "made.safetensors")
    (found,) = parsed(f"sentinel:classifier={path},budget=0.5", llama)
    assert isinstance(found, Sentinel)
    want = Sentinel(classifier=classifier(), budget=0.5).rewritten(llama, prompt(2))
    assert found.rewritten(llama, prompt(2)) == want
