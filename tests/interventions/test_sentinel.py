"""Sentences that are kept by their scores, and what becomes of the rest of a prompt."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from interventions.ordered import words
from interventions.sentences import SIZES, classifier, distinct, kept, laid_out, layouts, prompt

from headscope.errors import HeadscopeError
from headscope.interventions.compressing import Sentences, _Compressing
from headscope.interventions.infinite_retrieval import InfiniteRetrieval
from headscope.interventions.pause_tokens import PauseTokens
from headscope.interventions.sentinel import Sentinel
from headscope.interventions.sentinel_classifier import (
    SentinelClassifier,
    sentence_features,
)
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.needle import Needle


@dataclasses.dataclass(frozen=True)
class _Given(_Compressing):
    """Scores that a test gives."""

    paper = "tests"
    scores: tuple[float, ...] = dataclasses.field(kw_only=True)

    def _scores(self, model: HeadModel, context: Sentences) -> Sequence[float]:
        return self.scores


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
