"""Pauses before an answer: where they stand, and what moves with them."""

from typing import Any

import pytest
import torch
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from interventions.ordered import words
from interventions.sentences import laid_out, layouts, prompt
from tiny import VOCAB, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import headscope
from headscope.errors import HeadscopeError
from headscope.interventions.infinite_retrieval import InfiniteRetrieval
from headscope.interventions.pause_tokens import PauseTokens
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


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
