"""Needle: the sentences of its context, and tokens that stay the same from version to version."""

from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizing import byte_tokenizer, text_of

from headscope.model import HeadModel
from headscope.prompts import Needle
from headscope.prompts.base import SPLITS
from headscope.prompts.filler import join, passage
from headscope.prompts.weaving import weave


@pytest.mark.model
@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(["words", "bytes", "smollm2"]),
    length=st.integers(150, 700),
    depth=st.floats(0, 1),
    split=st.sampled_from(SPLITS),
    seed=st.integers(0, 10**6),
)
def test_sentences_are_the_context_in_order(
    smollm2: HeadModel, kind: str, length: int, depth: float, split: Any, seed: int
) -> None:
    tokenizer: Any = {
        "words": tiny_tokenizer(), "bytes": byte_tokenizer(True), "smollm2": smollm2.tokenizer
    }[kind]  # fmt: skip
    length *= 5 if kind == "bytes" else 1
    prompt = Needle(seed=seed, lengths=(length,), depths=(depth,), split=split).prompt(0, tokenizer)
    spans = prompt.numbered("sentence")
    assert spans.count(prompt.span("needle")) == 1
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    if kind == "words":
        return
    sentences = [text_of(tokenizer, prompt, f"sentence_{i}") for i in range(len(spans))]
    whole = str(tokenizer.decode(prompt.token_ids))
    context = whole[whole.index("\n\n") + 2 : whole.rindex("\n\nQuestion: ")]
    if kind == "smollm2":
        context = context[context.index("\n\n") + 2 :] if context.startswith("<") else context
    assert "".join("".join(sentences).split()) == "".join(context.split())


@given(
    st.integers(0, 20_000),
    st.integers(0, 200),
    st.lists(st.floats(0, 1), max_size=4).map(sorted),
)
def test_woven_sentences_are_exact(start: int, length: int, depths: list[float]) -> None:
    words = passage("detect", start, length)
    placed = [(depth, f"Placed {i}.") for i, depth in enumerate(depths)]
    woven = weave(words, placed)
    assert [woven.text[slice(*span)] for span in woven.placed] == [said for _, said in placed]
    assert woven.text.split() == [
        word for a, b in woven.sentences for word in woven.text[a:b].split()
    ]
    assert not placed or set(woven.placed) <= set(woven.sentences)
    if not placed:
        assert woven.text == join(words)


@pytest.mark.model
def test_prompts_are_those_of_the_first_version(smollm2: HeadModel) -> None:
    ids = [prompt.token_ids for prompt in Needle().prompts(smollm2.tokenizer)]
    assert sha256(repr(ids).encode()).hexdigest().startswith("37638f31ece4954d")
