"""Passkeys: in order, at their spans, within the length, and every one asked for."""

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
from headscope.prompts import Passkeys
from headscope.prompts.base import SPLITS
from headscope.prompts.passkeys import ORDINALS


@pytest.mark.model
@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(["words", "bytes", "smollm2"]),
    passkeys=st.integers(1, 8),
    words=st.integers(1, 4),
    length=st.integers(300, 900),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 30),
    seed=st.integers(0, 10**6),
)
def test_passkeys_stand_where_they_are_said_to(
    smollm2: HeadModel, kind: str, passkeys: int, words: int, length: int, split: Any, index: int,
    seed: int,
) -> None:  # fmt: skip
    tokenizer = {
        "words": tiny_tokenizer(), "bytes": byte_tokenizer(True), "smollm2": smollm2.tokenizer
    }[kind]  # fmt: skip
    length *= 4 if kind == "bytes" else 1
    family = Passkeys(
        seed=seed, passkeys=passkeys, words=words, lengths=(length, length + 50), split=split
    )
    prompt = family.prompt(index, tokenizer)
    assert any(0.99 * n <= len(prompt) <= n for n in family.lengths)
    spans, asked = prompt.numbered("passkey"), int(prompt.facts["asked"])
    assert len(spans) == passkeys
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert prompt.span("needle") == spans[asked]
    assert within(prompt, "answer", "needle")
    if kind == "words":
        return
    assert text_of(tokenizer, prompt, "answer") == prompt.answer
    assert tokenizer.decode(prompt.answer_ids) == " " + prompt.answer
    said = [text_of(tokenizer, prompt, f"passkey_{i}") for i in range(passkeys)]
    for ordinal, sentence in zip(ORDINALS, said, strict=False):
        assert f"The {ordinal} passkey" in sentence
        assert sentence.endswith(".")
    keys = [word for sentence in said for word in sentence.rstrip(".").split()[-words:]]
    assert len(set(keys)) == passkeys * words
    assert tokenizer.decode(prompt.token_ids).count(prompt.answer + ".") == 1
    assert ORDINALS[asked] in text_of(tokenizer, prompt, "question")


def test_every_passkey_is_asked_for_at_every_length() -> None:
    family = Passkeys(samples=8, passkeys=4, lengths=(300, 400))
    prompts = family.prompts(tiny_tokenizer())
    cells = Counter((p.facts["asked"], len(p) > 300) for p in prompts)
    assert len(cells) == 8
    more = Passkeys(samples=11, passkeys=4, lengths=(300, 400)).prompts(tiny_tokenizer())
    assert more[:8] == prompts


def test_splits_share_no_word() -> None:
    found = [
        {
            word
            for p in Passkeys(samples=20, lengths=(1500,), split=split).prompts(byte_tokenizer())
            for word in p.answer.split()
        }
        for split in SPLITS
    ]
    assert all(found)
    assert not any(a & b for i, a in enumerate(found) for b in found[i + 1 :])


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="1 to 10 of them"):
        Passkeys(passkeys=11)
    with pytest.raises(HeadscopeError, match="share no words"):
        Passkeys(passkeys=10, words=9)
    with pytest.raises(HeadscopeError, match="question alone takes"):
        Passkeys(lengths=(30,)).prompt(0, tiny_tokenizer())
