"""Keys and values: valid JSON, one pair asked for, each as often as the others."""

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizing import byte_tokenizer, text_of, within

from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.prompts import KeyValue
from headscope.prompts.base import SPLITS
from headscope.prompts.vocabulary import common_words


@pytest.mark.model
@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["words", "bytes", "smollm2"]),
    pairs=st.integers(1, len(common_words("test"))),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 99),
    seed=st.integers(0, 10**6),
)
def test_pairs_stand_where_they_are_said_to(
    smollm2: HeadModel, kind: str, pairs: int, split: Any, index: int, seed: int
) -> None:
    tokenizer = {
        "words": tiny_tokenizer(), "bytes": byte_tokenizer(True), "smollm2": smollm2.tokenizer
    }[kind]  # fmt: skip
    prompt = KeyValue(seed=seed, pairs=pairs, split=split).prompt(index, tokenizer)
    spans, slot = prompt.numbered("pair"), int(prompt.facts["slot"])
    assert len(spans) == pairs
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert prompt.span("needle") == spans[slot]
    assert within(prompt, "answer", "needle")
    if kind == "words":
        return
    whole = tokenizer.decode(prompt.token_ids)
    held = json.loads(whole[whole.index("{") : whole.index("}") + 1])
    assert len(held) == len(set(held.values())) == pairs
    said = [text_of(tokenizer, prompt, f"pair_{i}") for i in range(pairs)]
    assert [pair.strip() for pair in said] == [f'"{key}": {value}' for key, value in held.items()]
    assert text_of(tokenizer, prompt, "answer") == prompt.answer == str(held[prompt.facts["key"]])
    assert tokenizer.decode(prompt.answer_ids) == " " + prompt.answer
    assert str(prompt.facts["key"]) in text_of(tokenizer, prompt, "question")


def test_every_pair_is_asked_for_equally_often() -> None:
    prompts = KeyValue(samples=24).prompts(tiny_tokenizer())
    assert Counter(p.facts["slot"] for p in prompts) == Counter(list(range(12)) * 2)
    assert KeyValue(samples=5).prompts(tiny_tokenizer()) == prompts[:5]


def test_splits_share_nothing() -> None:
    found: list[set[Any]] = []
    for split in SPLITS:
        prompts = KeyValue(samples=40, split=split).prompts(byte_tokenizer())
        found.append({p.facts["key"] for p in prompts} | {p.answer for p in prompts})
    assert not any(a & b for i, a in enumerate(found) for b in found[i + 1 :])


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="not 0"):
        KeyValue(pairs=0)
    with pytest.raises(HeadscopeError, match="not 999"):
        KeyValue(pairs=999)
