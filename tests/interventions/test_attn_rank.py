"""Attention by slot, and relevance of documents to a question."""

import dataclasses
from math import log
from typing import Any

import pytest
import torch
from conftest import opened
from interventions.ordered import by_hand, docs, profile, prompt, words
from torch import Tensor
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.interventions.attention_sorting import AttentionSorting
from headscope.interventions.attn_rank import AttnRank
from headscope.interventions.relevance import bm25, tfidf
from headscope.interventions.slot_profile import SlotProfile
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


@pytest.mark.parametrize("layers", [None, (2,), (0, 2)])
def test_a_profile_is_the_mean_over_prompts(llama: HeadModel, layers: Any) -> None:
    prompts = [prompt(seed) for seed in range(3)]
    prompts.append(AttentionSorting(best="first").rewritten(llama, prompts[0]))
    assert docs(prompts[-1]) != [0, 1, 2, 3, 4]
    found = SlotProfile.measure(llama, prompts, layers)
    chosen = [(layer, h) for layer in layers or (0, 1, 2) for h in range(6)]
    want = [by_hand("llama", p.token_ids, sorted(p.numbered("doc")), chosen) for p in prompts]
    assert_close(torch.tensor(found.values), torch.stack(want).mean(0).float())


def test_a_profile_is_saved_and_another_model_refused(llama: HeadModel, tmp_path: Any) -> None:
    made = SlotProfile.measure(llama, [prompt(0)], layers=(1, 2))
    read = SlotProfile.load(made.save(tmp_path / "slots.json"))
    assert read == made
    assert hash(AttnRank(profile=read)) == hash(AttnRank(profile=made))
    other = opened("qwen3")
    with pytest.raises(HeadscopeError, match=f"measured on {llama.name}, and this is {other.name}"):
        AttnRank(profile=read).rewritten(other, prompt(0))
    (tmp_path / "slots.json").write_text('{"values": []}')
    with pytest.raises(HeadscopeError, match="damaged or no slotprofile"):
        SlotProfile.load(tmp_path / "slots.json")


def test_profiles_that_cannot_be_measured_are_refused(llama: HeadModel) -> None:
    four = dataclasses.replace(prompt(0), spans={"doc_0": (1, 3), "doc_1": (3, 4)})
    for prompts, layers, message in (
        ([], None, "same number of documents, one prompt at least; these have none"),
        ([prompt(0), four], None, "these have 2 or 5"),
        ([prompt(0)], (3,), "run from 0 to 2"),
        ([prompt(0)], (), "one layer or more"),
        ([Prompt((1, 2, 3))], None, "doc_0, doc_1"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            SlotProfile.measure(llama, prompts, layers)


DOCUMENTS = ["red blue red green", "blue blue yellow", "green pink green brown pink", "red"]


def test_bm25_by_hand() -> None:
    found, mean = bm25("Red, green, violet", DOCUMENTS), (4 + 3 + 5 + 1) / 4
    for score, document in zip(found, DOCUMENTS, strict=True):
        listed, want = document.split(), 0.0
        for word in ("red", "green"):
            held = sum(word in d.split() for d in DOCUMENTS)
            tf = listed.count(word)
            idf = log(1 + (4 - held + 0.5) / (held + 0.5))
            want += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(listed) / mean))
        assert score == pytest.approx(want)


def test_tfidf_by_hand() -> None:
    found, known = tfidf("red green", DOCUMENTS), sorted(set(" ".join(DOCUMENTS).split()))
    held = [sum(word in d.split() for d in DOCUMENTS) for word in known]

    def vector(text: str) -> Tensor:
        counts = torch.tensor([text.split().count(word) for word in known]).double()
        weights = counts * torch.tensor([log(5 / (1 + n)) + 1 for n in held]).double()
        return weights / weights.norm()

    want = [float(vector(d) @ vector("red green")) for d in DOCUMENTS]
    assert found == pytest.approx(want)


def test_relevance_may_be_a_function_of_texts(llama: HeadModel) -> None:
    given_, heard = prompt(0), []

    def judge(question: str, documents: list[str]) -> list[float]:
        heard.append((question, documents))
        return [0.0, 3.0, 1.0, 2.0, 4.0]

    method = AttnRank(profile=profile(llama, (0, 0, 9, 0, 0)), relevance=judge)
    assert docs(method.rewritten(llama, given_)) == [1, 3, 4, 2, 0]
    texts = [" ".join(f"w{t}" for t in words(given_, f"doc_{d}")) for d in range(5)]
    assert heard == [(" ".join(f"w{t}" for t in words(given_, "question")), texts)]


@pytest.mark.parametrize("relevance", ["tfidf", "bm25"])
def test_a_document_that_says_the_question_is_most_relevant(
    llama: HeadModel, relevance: Any
) -> None:
    given_ = dataclasses.replace(prompt(0), token_ids=tuple(range(10, 10 + len(prompt(0)))))
    ids, asked = list(given_.token_ids), words(given_, "question")
    ids[slice(*given_.span("doc_3"))] = [*asked, *asked]
    given_ = dataclasses.replace(given_, token_ids=tuple(ids))
    method = AttnRank(profile=profile(llama, (1, 5, 1, 1, 1)), relevance=relevance)
    assert docs(method.rewritten(llama, given_)) == [0, 3, 1, 2, 4]
