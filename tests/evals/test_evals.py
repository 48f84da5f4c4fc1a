"""What holds of every eval: answers where they are said to be, lengths, splits, choices."""

import dataclasses
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headscope.catalog import evals
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.prompts.base import SPLITS
from headscope.smollm2 import smollm2_folder

# One's own questions come from a file, and are tested with it.
MADE = {name: kind for name, kind in evals().items() if name != "own"}


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_folder())


@pytest.mark.parametrize("kind", MADE.values(), ids=MADE)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), index=st.integers(0, 40), length=st.integers(400, 900))
def test_answers_stand_where_they_are_said_to_and_lengths_are_met(
    kind: type[Eval], seed: int, index: int, length: int
) -> None:
    for lengths in {(), (length,)} if kind().lengths == () else {(length,)}:
        task = kind(seed=seed, lengths=lengths)
        item = task.item(index, tokenizer())
        prompt = item.prompt
        assert item == task.item(index, tokenizer())
        assert prompt.answer_ids
        assert prompt.facts["length"] == (length if lengths else 0)
        if lengths:
            total = len(prompt) + (len(prompt.answer_ids) if task.metric == "tokens" else 0)
            assert 0.99 * length <= total <= length
        assert not item.counted or len(item.counted) == len(prompt.answer_ids)
        if task.in_prompt:
            several = prompt.numbered("answer")
            spans = several or [prompt.span("answer")]
            said = tokenizer().decode(prompt.answer_ids)
            for span in spans:
                there = tokenizer().decode(prompt.token_ids[slice(*span)]).strip()
                assert there.strip(' ."') in said, (there, said)
            if not several and task.metric != "tokens":
                assert said.strip() in tokenizer().decode(prompt.token_ids[slice(*spans[0])])


@pytest.mark.parametrize("kind", MADE.values(), ids=MADE)
@pytest.mark.parametrize("index", [0, 3])
def test_choices_are_others_and_pairs_differ_in_what_is_right(kind: type[Eval], index: int) -> None:
    item = kind(seed=5).item(index, tokenizer())
    assert bool(item.wrong) == (kind.metric == "choice")
    answers = [item.prompt.answer_ids, *item.right, *item.wrong]
    assert len(set(answers)) == len(answers)
    if item.corrupt is not None:
        assert len(item.corrupt) == len(item.prompt)
        assert item.corrupt.token_ids != item.prompt.token_ids
        assert item.corrupt.answer_ids in item.wrong


@pytest.mark.parametrize("kind", MADE.values(), ids=MADE)
def test_splits_share_no_prompt_and_more_samples_only_add(kind: type[Eval]) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for split in SPLITS:
        task = kind(samples=6, split=split)
        prompts = [item.prompt.token_ids for item in task.items(tokenizer())]
        fewer = dataclasses.replace(task, samples=2)
        assert [item.prompt.token_ids for item in fewer.items(tokenizer())] == prompts[:2]
        for ids in prompts:
            assert seen.setdefault(ids, split) == split


@pytest.mark.parametrize("kind", MADE.values(), ids=MADE)
def test_every_eval_says_what_it_is(kind: type[Eval]) -> None:
    assert kind.__doc__
    assert "Source:" in kind.__doc__
    assert kind.source
    assert kind.licence
    assert kind.metric in ("answer", "choice", "tokens")


@pytest.mark.parametrize("kind", MADE.values(), ids=MADE)
def test_a_tokenizer_that_knows_next_to_no_word_gets_an_item_or_a_sentence(kind: Any) -> None:
    with suppress(HeadscopeError):
        assert kind().item(0, opened("llama").tokenizer).prompt.answer_ids
