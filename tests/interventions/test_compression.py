"""Methods that shorten or pad a prompt, against dense attention of transformers' own eager path."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from safetensors.numpy import save_file
from tiny import VOCAB, reference_model, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import headscope
from headscope.errors import HeadscopeError
from headscope.interventions.compressing import Sentences, _Compressing
from headscope.interventions.infinite_retrieval import InfiniteRetrieval
from headscope.interventions.pause_tokens import PauseTokens
from headscope.interventions.ranking_fit import GRID, within_auc
from headscope.interventions.sentinel import Sentinel
from headscope.interventions.sentinel_classifier import (
    SentinelClassifier,
    needle_sentence,
    sentence_features,
)
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.needle import Needle

LENGTHS, GAPS = (4, 6, 3, 7, 5), (3, 1, 0, 2, 1)  # of sentences, and of what stands before them
SIZES = (4, 7, 3, 9, 6)  # a gap belongs to the sentence behind it, but for the first
MODELS = ("llama", "qwen3", "gpt2", "mistral")


def prompt(seed: int, needle: int = 2) -> Prompt:
    """Five sentences of random words with text around them, and a question behind."""
    spans, at = {}, 0
    for number, (gap, length) in enumerate(zip(GAPS, LENGTHS, strict=True)):
        spans[f"sentence_{number}"] = (at + gap, at + gap + length)
        at += gap + length
    start, stop = spans[f"sentence_{needle}"]
    spans |= {"needle": (start, stop), "answer": (stop - 1, stop), "question": (at + 1, at + 4)}
    drawn = torch.randint(3, VOCAB, (at + 6,), generator=torch.Generator().manual_seed(seed))
    return Prompt(tuple(drawn.tolist()), spans, "w5", (5,))


reference = cache(reference_model)


def dense(architecture: str, ids: Sequence[int]) -> Tensor:
    """Every pattern, [layer, head, query, key]."""
    with torch.no_grad():
        found = reference(architecture)(torch.tensor([list(ids)]), output_attentions=True)
    return torch.cat(found.attentions).double()


def words(found: Prompt, name: str) -> tuple[int, ...]:
    return found.token_ids[slice(*found.span(name))]


@cache
def classifier(name: str = "llama") -> SentinelClassifier:
    prompts = [prompt(seed, needle=seed % 5) for seed in range(10)]
    return SentinelClassifier.train(opened(name), prompts)


# ---- features and training ---------------------------------------------------------------------


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


# ---- files -------------------------------------------------------------------------------------


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


# ---- what is kept ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Given(_Compressing):
    """Scores that a test gives."""

    paper = "tests"
    scores: tuple[float, ...] = dataclasses.field(kw_only=True)

    def _scores(self, model: HeadModel, context: Sentences) -> Sequence[float]:
        return self.scores


def kept(found: Prompt, before: Prompt) -> list[int]:
    """The numbers of the sentences that were kept, where every token is another."""
    spans = before.numbered("sentence")
    return [i for i, (start, _) in enumerate(spans) if before.token_ids[start] in found.token_ids]


def distinct() -> Prompt:
    return dataclasses.replace(prompt(0), token_ids=tuple(range(3, 3 + len(prompt(0)))))


@pytest.mark.parametrize(
    ("budget", "want"),
    [
        (29, [0, 1, 2, 3, 4]),  # all of the context
        (28, [0, 1, 3, 4]),  # the lowest no longer fits
        (16, [1, 2, 4]),  # what does not fit is passed over: 9 of sentence 3, then 4 of sentence 0
        (13, [1, 4]),
        (7, [1]),
        (6, [4]),
        (5, [0]),
        (3, [2]),
        (0.25, [1]),  # 7 of 29 tokens
        (0.99, [0, 1, 3, 4]),
    ],
)
def test_the_best_that_fit_are_kept_in_their_order(
    llama: HeadModel, budget: Any, want: list[int]
) -> None:
    method = _Given(budget=budget, scores=(0.4, 0.9, 0.1, 0.5, 0.8))
    found = method.rewritten(llama, distinct())
    assert kept(found, distinct()) == want
    assert len(found.numbered("sentence")) == len(want)


@pytest.mark.parametrize(
    ("threshold", "want"),
    [(0.5, [1, 3, 4]), (0.85, [1]), (0.95, [1]), (0.0, [0, 1, 2, 3, 4]), (0.11, [0, 1, 3, 4])],
)
def test_a_threshold_keeps_what_reaches_it_and_always_the_best(
    llama: HeadModel, threshold: float, want: list[int]
) -> None:
    method = _Given(threshold=threshold, scores=(0.4, 0.9, 0.1, 0.5, 0.8))
    assert kept(method.rewritten(llama, distinct()), distinct()) == want


def test_of_equal_scores_the_earlier_is_kept(llama: HeadModel) -> None:
    method = _Given(budget=11, scores=(0.5,) * 5)
    assert kept(method.rewritten(llama, distinct()), distinct()) == [0, 1]


def test_what_stands_around_the_context_stays(llama: HeadModel) -> None:
    given_ = distinct()
    found = _Given(budget=16, scores=(0, 1, 0, 2, 0)).rewritten(llama, given_)
    first, third = given_.span("sentence_1"), given_.span("sentence_3")
    before = given_.token_ids[third[0] - 2 : third[1]]  # the two tokens between 2 and 3
    end = given_.span("sentence_4")[1]
    assert found.token_ids == (
        *given_.token_ids[:3], *given_.token_ids[slice(*first)], *before, *given_.token_ids[end:]
    )  # fmt: skip
    assert words(found, "sentence_0") == words(given_, "sentence_1")
    assert words(found, "sentence_1") == words(given_, "sentence_3")
    assert words(found, "question") == words(given_, "question")
    assert set(found.spans) == {"sentence_0", "sentence_1", "question"}
    assert found.answer_ids == given_.answer_ids


def test_sentinel_keeps_what_its_probabilities_say(llama: HeadModel) -> None:
    made, several = classifier(), set()
    for seed in range(8):
        given_ = prompt(seed)
        p = made.probabilities(sentence_features(llama, given_))
        found = Sentinel(classifier=made, threshold=0.5).rewritten(llama, given_)
        want = [i for i in range(5) if p[i] >= min(0.5, p.max())]
        assert [words(found, f"sentence_{new}") for new in range(len(want))] == [
            words(given_, f"sentence_{i}") for i in want
        ]
        several.add(tuple(want))
        room, chosen = 16, []
        for i in np.argsort(-p, kind="stable"):
            if SIZES[i] <= room:
                chosen.append(int(i))
                room -= SIZES[i]
        found = Sentinel(classifier=made, budget=16).rewritten(llama, given_)
        assert found == Sentences.of(given_, "sentence", "a test").keep(chosen)
    assert len(several) > 2


def test_probabilities_stay_apart_and_finite_far_from_the_middle() -> None:
    made = dataclasses.replace(
        classifier(), coefficients=np.full((3, 6), 1e3), mean=np.zeros((3, 6)),
        scale=np.ones((3, 6)), intercept=0.0,
    )  # fmt: skip
    p = made.probabilities(np.array([-0.02, -0.01, 0.0, 900.0])[:, None, None] * np.ones((3, 6)))
    assert (np.diff(p) > 0).all()
    assert p[2] == 0.5
    assert p[3] == 1


def test_where_all_fits_nothing_is_read_or_changed(
    llama: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, given_ = classifier(), prompt(0)
    retrieval = InfiniteRetrieval(chunk=29)
    monkeypatch.setattr(type(llama), "forward", None)
    for budget in (29, 10_000):
        assert Sentinel(classifier=made, budget=budget).rewritten(llama, given_) is given_
    assert retrieval.prepared(llama, given_) == (retrieval, given_)
    for place in ("before_answer", "end_of_question", "end_of_prompt"):
        assert PauseTokens(0, "w7", place).rewritten(llama, given_) is given_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a budget or a threshold"),
        ({"budget": 4, "threshold": 0.5}, "either a budget or a threshold"),
        ({"budget": 0}, "1 token or more"),
        ({"budget": True}, "1 token or more"),
        ({"budget": 1.0}, "between 0 and 1"),
        ({"budget": float("nan")}, "between 0 and 1"),
        ({"threshold": 1.5}, "threshold between 0 and 1"),
        ({"threshold": float("nan")}, "threshold between 0 and 1"),
    ],
)
def test_bad_parameters_of_sentinel_are_refused(options: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        Sentinel(**{"classifier": classifier(), **options})


def test_prompts_that_do_not_fit_are_refused(llama: HeadModel) -> None:
    method = Sentinel(classifier=classifier(), budget=2)
    with pytest.raises(HeadscopeError, match=r"2 tokens, and the shortest sentence .* 3 of 29"):
        method.rewritten(llama, prompt(0))
    with pytest.raises(HeadscopeError, match="0 tokens, and the shortest"):
        Sentinel(classifier=classifier(), budget=0.01).rewritten(llama, prompt(0))
    for spans, message in (
        ({"question": (3, 4)}, r"spans sentence_0, .* or the eval 'needle'"),
        ({"sentence_0": (2, 2), "question": (7, 8)}, "Sentinel needs sentences that lie"),
        ({"sentence_0": (2, 5), "sentence_1": (4, 6)}, "Sentinel needs sentences that are apart"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            method.rewritten(llama, Prompt(tuple(range(3, 12)), spans))
    with pytest.raises(HeadscopeError, match="changes the prompt, not the model"), method(llama):
        pass


# ---- spans -------------------------------------------------------------------------------------


@st.composite
def layouts(draw: Any) -> tuple[int, dict[str, tuple[int, int]], list[int]]:
    """A prompt's length and spans, and the places of the sentences to keep."""
    n = draw(st.integers(1, 6))
    spans, at = {}, draw(st.integers(0, 2))
    for number in draw(st.permutations(range(n))):
        start = at + draw(st.integers(0, 3))
        at = start + draw(st.integers(1, 5))
        spans[f"sentence_{number}"] = (start, at)
        a, b = sorted(draw(st.tuples(st.integers(start, at), st.integers(start, at))))
        if a < b:
            spans[f"part_{number}"] = (a, b)
    length = at + draw(st.integers(1, 4))
    a, b = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
    spans |= {"anywhere": (a, b)} if a < b else {}
    spans["question"] = (at, length)
    some = draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    return length, spans, some


def laid_out(length: int, spans: Any) -> Prompt:
    """A prompt in which every token is another."""
    return Prompt(tuple(range(3, 3 + length)), spans)


@settings(deadline=None, max_examples=200)
@given(layouts())
def test_kept_sentences_and_spans_keep_their_tokens(layout: Any) -> None:
    given_, some = laid_out(*layout[:2]), layout[2]
    found = Sentences.of(given_, "sentence", "a test").keep(some)
    standing = sorted(given_.numbered("sentence"))
    first, last = standing[0][0], standing[-1][1]
    assert list(found.token_ids) == sorted(found.token_ids)
    gone = [span for i, span in enumerate(standing) if i not in some]
    for token in range(len(given_)):
        there = token + 3 in found.token_ids
        if not first <= token < last:
            assert there
        elif any(start <= token < stop for start, stop in standing):
            assert there == (not any(start <= token < stop for start, stop in gone))
    size = len(found) - (len(given_) - (last - first))
    sizes = Sentences.of(given_, "sentence", "a test").sizes
    gap = sizes[min(some)] - (standing[min(some)][1] - standing[min(some)][0])
    assert size == sum(sizes[i] for i in some) - gap
    kept_ = [s for s in given_.numbered("sentence") if standing.index(s) in some]
    assert [words(found, f"sentence_{i}") for i in range(len(kept_))] == [
        given_.token_ids[slice(*span)] for span in kept_
    ]
    assert f"sentence_{len(kept_)}" not in found.spans
    for name in given_.spans:
        if not name.startswith("sentence"):
            whole = set(words(given_, name)) <= set(found.token_ids)
            assert (name in found.spans) == whole, name
            if whole:
                assert words(found, name) == words(given_, name)


@settings(deadline=None, max_examples=150)
@given(layouts(), st.integers(1, 4), st.sampled_from(["end_of_question", "end_of_prompt"]))
def test_spans_move_with_pauses(layout: Any, count: int, place: Any) -> None:
    model, given_ = opened("llama"), laid_out(*layout[:2])
    behind = (len(given_), len(given_) + 2)
    tail = Prompt((*given_.token_ids, 60, 61), {**given_.spans, "behind": behind})
    found = PauseTokens(count, 2, place).rewritten(model, tail)
    at = len(given_) if place == "end_of_question" else len(tail)
    assert found.token_ids == (*tail.token_ids[:at], *[2] * count, *tail.token_ids[at:])
    for name in tail.spans:
        assert words(found, name) == words(tail, name), name


# ---- pauses ------------------------------------------------------------------------------------


def test_a_span_around_pauses_holds_them(llama: HeadModel) -> None:
    around = Prompt(tuple(range(3, 13)), {"question": (4, 6), "user": (2, 8), "next": (6, 8)})
    found = PauseTokens(3, "w2", "end_of_question").rewritten(llama, around)
    assert found.token_ids == (3, 4, 5, 6, 7, 8, 2, 2, 2, 9, 10, 11, 12)
    assert found.spans == {"question": (4, 6), "user": (2, 11), "next": (9, 11)}


def test_pauses_are_what_the_model_reads(llama: HeadModel) -> None:
    """The same logits as the tokens written out, which are not those without them."""
    given_ = prompt(0)
    found = PauseTokens(2, "w7", "end_of_prompt").rewritten(llama, given_)
    want = llama([*given_.token_ids, 7, 7])
    assert torch.equal(llama(list(found.token_ids)), want)
    assert (want[0, -1] - llama(list(given_.token_ids))[0, -1]).abs().max() > 0.1


def speaking(template: str | None) -> HeadModel:
    """A tiny model whose words are those of a prompt with a question."""
    said = ["Read", "Question:", "who", "?", "Answer:", "The", "is", "<s>", "</s>", "user", "bot"]
    vocab = {word: i for i, word in enumerate([*said, *(f"w{i}" for i in range(VOCAB - 11))])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2", unk_token="w0"
    )
    made.chat_template = template
    return headscope.load(tiny_model("llama"), made)


_CHAT = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> bot {% endif %}"
)


@pytest.mark.parametrize(
    ("template", "text", "want"),
    [
        (None, "Read Question: who ? Answer: The w3 is", 5),
        (None, "Answer: Question: who ? The w3 is", 7),  # none behind the question
        (None, "Read w1 w2", 3),
        (_CHAT, "<s> user Read Question: who ? </s> <s> bot The w3 is", 9),
        (_CHAT, "Read Question: who ? Answer: The w3 is", 5),  # a chat model asked plainly
        (_CHAT, "<s> user Read Question: who ? </s> <s> bot", 9),
    ],
)
def test_pauses_stand_before_given_words_of_the_answer(
    template: str | None, text: str, want: int
) -> None:
    model = speaking(template)
    ids = model.tokenizer(text)["input_ids"]
    asked = text.split().index("?") if "?" in text else None
    spans = {} if asked is None else {"question": (asked - 1, asked + 1)}
    found = PauseTokens(2, "w5").rewritten(model, Prompt(tuple(ids), spans))
    pause = model.tokenizer("w5")["input_ids"]
    assert list(found.token_ids) == [*ids[:want], *pause * 2, *ids[want:]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PauseTokens(-1), "count of 0 or more"),
        (lambda: PauseTokens(True), "count of 0 or more"),
        (lambda: InfiniteRetrieval(chunk=0), "whole chunk of 1"),
        (lambda: InfiniteRetrieval(top=0), "whole top of 1"),
        (lambda: InfiniteRetrieval(phrase=True), "whole phrase of 1"),
        (lambda: InfiniteRetrieval(layers=0), "whole layers of 1"),
    ],
)
def test_bad_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        make()


def test_pauses_that_are_no_token_or_have_no_place_are_refused(llama: HeadModel) -> None:
    for method, message in (
        (PauseTokens(1, "w3 w4"), "is 2"),
        (PauseTokens(0, "w3 w4"), "is 2"),
        (PauseTokens(1, VOCAB), f"tokens 0 to {VOCAB - 1}"),
        (PauseTokens(1, 5, "end_of_question"), "no span named 'question'"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            method.rewritten(llama, Prompt((3, 4, 5)))


# ---- infinite retrieval ------------------------------------------------------------------------


def retrieved(
    architecture: str, given_: Prompt, chunk: int, top: int, phrase: int, layers: int
) -> tuple[int, ...]:
    """The method over lists of tokens: what is read, and the dense pattern of each reading."""
    ids, spans = given_.token_ids, given_.numbered("sentence")
    head, tail = ids[: spans[0][0]], ids[spans[-1][1] :]
    asked = given_.span("question")[0] - spans[-1][1], given_.span("question")[1] - spans[-1][1]
    bodies = [list(ids[a:b]) for a, b in spans]
    gaps = [[], *(list(ids[b:a]) for (_, b), (a, _) in pairwise(spans))]
    readings, size = [[0]], len(bodies[0])
    for i in range(1, len(bodies)):
        size += len(gaps[i]) + len(bodies[i])
        if size > chunk:
            readings.append([i])
            size = len(gaps[i]) + len(bodies[i])
        else:
            readings[-1].append(i)
    held: list[int] = []
    for new in readings:
        held += new
        context, owner = list[int](), list[int]()
        for i in held:
            gap = [] if i == held[0] else gaps[i]
            context += gap + bodies[i]
            owner += [-1] * len(gap) + [i] * len(bodies[i])
        read = [*head, *context, *tail]
        at = len(head) + len(context)
        rows = dense(architecture, read)[-layers:, :, at + asked[0] : at + asked[1]]
        given = rows.sum((0, 1, 2))[len(head) : at].tolist()
        full = np.convolve(given, np.ones(phrase))
        start = (phrase - 1) // 2
        scores = full[start : start + len(given)]
        real = [j for j in range(len(given)) if owner[j] >= 0]
        best = sorted(real, key=lambda j: -scores[j])[:top]
        held = sorted({owner[j] for j in best})
    context = [t for i in held for t in ([] if i == held[0] else gaps[i]) + bodies[i]]
    return (*head, *context, *tail)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize(
    ("chunk", "top", "phrase", "layers"),
    [(10, 3, 1, 1), (16, 4, 3, 2), (9, 2, 4, 3), (12, 6, 8, 1), (1, 1, 2, 1)],
)
def test_sentences_are_retrieved_by_dense_attention(
    architecture: str, chunk: int, top: int, phrase: int, layers: int
) -> None:
    model, lengths = opened(architecture), set()
    for seed in range(6):
        given_ = prompt(seed)
        found = InfiniteRetrieval(chunk, top, phrase, layers=layers).rewritten(model, given_)
        assert found.token_ids == retrieved(architecture, given_, chunk, top, phrase, layers)
        assert words(found, "question") == words(given_, "question")
        lengths.add(len(found))
    assert max(lengths) < len(prompt(0))


def test_with_room_for_every_token_all_is_kept(llama: HeadModel) -> None:
    assert InfiniteRetrieval(chunk=10, top=99).rewritten(llama, prompt(0)) == prompt(0)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_backends_retrieve_alike(llama: HeadModel, backend: str) -> None:
    method = InfiniteRetrieval(10, 3, 2, layers=2)
    assert method.rewritten(opened("llama", backend), prompt(1)) == method.rewritten(
        llama, prompt(1)
    )


def test_retrieval_where_it_cannot_work_is_refused(llama: HeadModel) -> None:
    first = dataclasses.replace(prompt(0), spans={**prompt(0).spans, "question": (0, 3)})
    for method, given_, message in (
        (InfiniteRetrieval(layers=4), prompt(0), "last 4 layers, and .* has 3"),
        (InfiniteRetrieval(), first, "put the question last"),
        (InfiniteRetrieval(question="asked"), prompt(0), "no span named 'asked'"),
        (InfiniteRetrieval(), Prompt((3, 4, 5)), "InfiniteRetrieval needs the sentences"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            method.rewritten(llama, given_)


def test_the_model_is_left_as_it_was(llama: HeadModel) -> None:
    given_ = prompt(1)
    plain = llama(list(given_.token_ids))
    for method in (InfiniteRetrieval(10, 3), Sentinel(classifier=classifier(), budget=9)):
        assert method.prepared(llama, given_)[1] != given_
        assert torch.equal(llama(list(given_.token_ids)), plain)
        assert not llama.stack.chain.entered


@pytest.mark.model
def test_a_needle_is_kept_by_a_real_model(smollm2: HeadModel) -> None:
    tokenizer = smollm2.tokenizer
    train = Needle(samples=8, lengths=(192,), split="detect").prompts(tokenizer)
    made = SentinelClassifier.train(smollm2, train)
    (tested,) = Needle(samples=1, lengths=(192,), split="test").prompts(tokenizer)
    for method in (
        Sentinel(classifier=made, budget=0.3),
        InfiniteRetrieval(64, 8, layers=20),
    ):
        found = method.rewritten(smollm2, tested)
        assert len(found) < len(tested)
        assert words(found, "answer") == words(tested, "answer")
        assert words(found, "needle") == words(tested, "needle")
    paused = PauseTokens(3).rewritten(smollm2, tested)
    text = smollm2.tokenizer.decode(list(paused.token_ids))
    before, behind = text.split(" ... ... ...")
    assert before.endswith("assistant\n")
    assert "\n" not in behind
