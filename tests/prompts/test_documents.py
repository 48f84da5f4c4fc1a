"""Documents: equal to the token, in balanced orders, with one fact that answers."""

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
from headscope.prompts import Documents, Prompt
from headscope.prompts.base import SPLITS


def bodies(family: Documents, tokenizer: Any) -> list[list[str]]:
    """Per sample the documents in slot order, without their numbers."""
    return [
        [
            tokenizer.decode(prompt.token_ids[slice(*span)]).split(": ", 1)[1]
            for span in prompt.numbered("doc")
        ]
        for prompt in family.prompts(tokenizer)
    ]


def check(prompt: Prompt, documents: int, tokens: int) -> None:
    spans = prompt.numbered("doc")
    assert [stop - start for start, stop in spans] == [tokens] * documents
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert prompt.span("gold") == spans[int(prompt.facts["slot"])]
    assert within(prompt, "needle", "gold")
    assert within(prompt, "answer", "needle")
    assert prompt.span("question")[0] >= spans[-1][1]


@pytest.mark.model
@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(["words", "bytes", "smollm2"]),
    documents=st.integers(2, 13),
    tokens=st.integers(0, 60),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 40),
    seed=st.integers(0, 10**6),
)
def test_documents_have_exactly_the_tokens_that_were_asked_for(
    smollm2: HeadModel, kind: str, documents: int, tokens: int, split: Any, index: int, seed: int
) -> None:
    tokenizer = {
        "words": tiny_tokenizer(), "bytes": byte_tokenizer(), "smollm2": smollm2.tokenizer
    }[kind]  # fmt: skip
    tokens += {"words": 60, "bytes": 400, "smollm2": 80}[kind]
    family = Documents(seed=seed, documents=documents, document_tokens=tokens, split=split)
    prompt = family.prompt(index, tokenizer)
    check(prompt, documents, tokens)
    assert prompt.facts["documents"] == documents
    if kind == "words":
        return
    facts = prompt.facts
    needle = str(facts["template"]).format(key=facts["key"], answer=prompt.answer)
    assert text_of(tokenizer, prompt, "needle") == needle
    assert text_of(tokenizer, prompt, "answer") == prompt.answer
    assert tokenizer.decode(prompt.answer_ids) == " " + prompt.answer
    whole = tokenizer.decode(prompt.token_ids)
    assert whole.count(prompt.answer) == whole.count(needle) == 1
    for slot in range(documents):
        said = text_of(tokenizer, prompt, f"doc_{slot}")
        assert said.startswith(f"Document {slot + 1}: ")
        assert said.endswith(".")


@pytest.mark.model
def test_every_document_and_the_gold_one_stand_in_every_slot_once(smollm2: HeadModel) -> None:
    family = Documents(samples=16)
    found = bodies(family, smollm2.tokenizer)
    prompts = family.prompts(smollm2.tokenizer)
    for block in (slice(0, 8), slice(8, 16)):
        slots = list(zip(*found[block], strict=True))
        assert all(len(set(slot)) == 8 for slot in slots)
        assert all(set(slot) == set(slots[0]) for slot in slots)
        assert Counter(p.facts["slot"] for p in prompts[block]) == Counter(range(8))
    assert not set(found[0]) & set(found[8])
    assert len({p.answer for p in prompts}) > 4


def test_more_samples_only_add_and_seeds_differ() -> None:
    tokenizer = tiny_tokenizer()
    few, many = Documents(samples=3), Documents(samples=10)
    assert many.prompts(tokenizer)[:3] == few.prompts(tokenizer)
    spelled = byte_tokenizer()
    one, two = (
        Documents(samples=1, document_tokens=400, seed=seed).prompts(spelled) for seed in (0, 1)
    )
    assert one != two


def test_splits_share_no_subject_and_no_answer() -> None:
    tokenizer = byte_tokenizer()
    found: list[set[Any]] = []
    for split in SPLITS:
        prompts = Documents(samples=40, documents=4, document_tokens=300, split=split)
        made = prompts.prompts(tokenizer)
        found.append({p.facts["key"] for p in made} | {p.answer for p in made})
    assert all(found)
    assert not any(a & b for i, a in enumerate(found) for b in found[i + 1 :])


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="2 to 48 documents, not 1"):
        Documents(documents=1)
    with pytest.raises(HeadscopeError, match="title and a fact alone take"):
        Documents(document_tokens=5).prompt(0, tiny_tokenizer())
    with pytest.raises(HeadscopeError, match="exactly 12 tokens cannot be made"):
        Documents(document_tokens=12).prompt(0, tiny_tokenizer())
