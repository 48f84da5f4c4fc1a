"""Methods that reorder documents, against dense attention of transformers' own eager path."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from interventions.ordered import LENGTHS, MODELS, by_hand, docs, methods, profile, prompt, words
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.evals.documents import Documents as DocumentsEval
from headscope.interventions.attention_sorting import AttentionSorting
from headscope.interventions.attn_rank import AttnRank
from headscope.interventions.calibrated_ranking import CalibratedRanking
from headscope.model import HeadModel
from headscope.prompts.base import Prompt


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("heads", [None, ((0, 1), (2, 5))])
def test_documents_are_sorted_by_dense_attention(architecture: str, heads: Any) -> None:
    model, orders = opened(architecture), set()
    for seed in range(4):
        given_ = prompt(seed)
        spans = given_.numbered("doc")
        scores = by_hand(architecture, given_.token_ids, spans, heads)
        for best, sign in (("last", 1), ("first", -1)):
            order = (sign * scores).argsort(stable=True).tolist()
            found = AttentionSorting(best=best, heads=heads).rewritten(model, given_)
            assert docs(found) == order
            orders.add(tuple(order))
    if architecture != "mistral":  # its window leaves the first documents equal
        assert len(orders) > 4


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_every_round_reads_the_prompt_as_the_last_one_left_it(
    llama: HeadModel, rounds: int
) -> None:
    moved = 0
    for seed in range(6):
        given_ = prompt(seed)
        ids, spans = given_.token_ids, dict(enumerate(given_.numbered("doc")))
        for each in range(rounds):
            numbers = sorted(spans, key=lambda d: spans[d])
            scores = by_hand("llama", ids, [spans[d] for d in numbers])
            order = [numbers[i] for i in scores.argsort(stable=True).tolist()]
            moved += each > 0 and order != numbers
            new, after = [], {}
            for slot, number in enumerate(order):
                end = 0 if slot == 0 else spans[numbers[slot - 1]][1]
                new += ids[end : spans[numbers[slot]][0]]
                after[number] = (len(new), len(new) + LENGTHS[number])
                new += ids[slice(*spans[number])]
            ids, spans = (*new, *ids[spans[numbers[-1]][1] :]), after
        found = AttentionSorting(rounds=rounds).rewritten(llama, given_)
        assert found.token_ids == ids
        assert found.numbered("doc") == [spans[d] for d in range(5)]
    assert moved or rounds == 1


@pytest.mark.parametrize("best", ["last", "first"])
def test_documents_of_equal_attention_stay_in_order(best: Any) -> None:
    """No head of a model with a window of 8 tokens sees any document from 12 tokens behind."""
    model, given_ = opened("mistral"), prompt(0, tail=12)
    assert AttentionSorting(best=best, rounds=3).rewritten(model, given_) == given_


def test_padding_leaves_what_a_sorted_prompt_is_answered_with(llama: HeadModel) -> None:
    ids = torch.tensor([AttentionSorting().rewritten(llama, prompt(1)).token_ids])
    padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), ids), 1)
    batch = torch.cat((padded, torch.randint(3, 97, padded.shape)))
    mask = torch.ones_like(batch)
    mask[0, :5] = 0
    alone = llama.generate(ids, max_new_tokens=5)
    assert torch.equal(llama.generate(batch, max_new_tokens=5, attention_mask=mask)[:1], alone)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_backends_agree(llama: HeadModel, backend: str) -> None:
    other, given_ = opened("llama", backend), prompt(3)
    for method in (AttentionSorting(rounds=2), CalibratedRanking(dummy="w7 w9 w8")):
        assert method.rewritten(other, given_) == method.rewritten(llama, given_)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("heads", [None, ((1, 0), (2, 3))])
def test_a_dummy_stands_in_each_slot_in_turn(architecture: str, heads: Any) -> None:
    model, given_ = opened(architecture), prompt(5)
    ids, spans = list(given_.token_ids), given_.numbered("doc")
    method = CalibratedRanking(dummy="w7 w9 w8", heads=heads)
    found = method.scores(model, given_)
    raw, empty = by_hand(architecture, ids, spans, heads), []
    for slot, (start, stop) in enumerate(spans):
        with_dummy = ids[:start] + ([7, 9, 8] * 3)[: stop - start] + ids[stop:]
        empty.append(by_hand(architecture, with_dummy, spans, heads)[slot])
    assert_close(torch.tensor(found.attention), raw.float(), atol=1e-6, rtol=1e-4)
    assert_close(torch.tensor(found.dummy), torch.stack(empty).float(), atol=1e-6, rtol=1e-4)
    for best, sign in (("last", 1), ("first", -1)):
        order = (sign * (raw - torch.stack(empty))).argsort(stable=True).tolist()
        assert docs(dataclasses.replace(method, best=best).rewritten(model, given_)) == order


@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_how_many_are_read_at_once_makes_no_difference(llama: HeadModel, at_once: int) -> None:
    want = CalibratedRanking().scores(llama, prompt(2))
    found = CalibratedRanking(at_once=at_once).scores(llama, prompt(2))
    assert_close(torch.tensor(found.calibrated), torch.tensor(want.calibrated))


def test_a_dummy_gains_nothing_over_itself(llama: HeadModel) -> None:
    given_ = prompt(4)
    ids, (start, stop) = list(given_.token_ids), given_.span("doc_3")
    ids[start:stop] = ([7, 9] * 3)[: stop - start]
    same = dataclasses.replace(given_, token_ids=tuple(ids))
    rel = CalibratedRanking(dummy="w7 w9").scores(llama, same).calibrated
    assert rel[3] == pytest.approx(0, abs=1e-7)
    assert max(map(abs, rel)) > 1e-4


@st.composite
def layouts(draw: Any) -> tuple[int, dict[str, tuple[int, int]], list[float], list[float]]:
    """A prompt's length and spans, relevance by document, attention by slot."""
    n = draw(st.integers(1, 6))
    numbers, spans, at = draw(st.permutations(range(n))), {}, 0
    for number in numbers:
        start = at + draw(st.integers(0, 3))
        at = start + draw(st.integers(1, 5))
        spans[f"doc_{number}"] = (start, at)
        a, b = sorted(draw(st.tuples(st.integers(start, at), st.integers(start, at))))
        if a < b:
            spans[f"part_{number}"] = (a, b)
    tail = draw(st.integers(1, 4))
    spans["question"] = (at, at + tail)
    numbers_ = st.lists(st.integers(0, 3).map(float), min_size=n, max_size=n)
    return at + tail, spans, draw(numbers_), draw(numbers_)


@settings(deadline=None, max_examples=150)
@given(layouts())
def test_documents_move_whole_and_nothing_else_moves(layout: Any) -> None:
    length, spans, relevance, values = layout
    given_ = Prompt(tuple(range(length)), spans)  # every token is another
    model, before = opened("llama"), given_.numbered("doc")
    method = AttnRank(profile=profile(model, values), relevance=relevance)
    found = method.rewritten(model, given_)
    assert Counter(found.token_ids) == Counter(given_.token_ids)
    assert set(found.spans) == set(given_.spans)
    for name in given_.spans:
        assert words(found, name) == words(given_, name), name
    gaps, end = [], 0
    for start, stop in [*sorted(before), (len(given_), len(given_))]:
        gaps.append(given_.token_ids[end:start])
        end = stop
    want = list(gaps[0])
    for number, gap in zip(docs(found), gaps[1:], strict=True):
        want += [*given_.token_ids[slice(*before[number])], *gap]
    assert list(found.token_ids) == want
    # More attention, then a place further on in front, goes with more relevance.
    slots = sorted(range(len(values)), key=lambda slot: (-values[slot], slot))
    ranked = sorted(range(len(values)), key=lambda d: (-relevance[d], before[d]))
    assert [docs(found)[slot] for slot in slots] == ranked


def test_spans_over_several_documents(llama: HeadModel) -> None:
    """One over all of them stays where it is; one over two is dropped where they part."""
    given_ = prompt(0)
    over = {"user": (2, 36), "all": (3, 34), "two": (3, 16), "late": (23, 34)}
    given_ = dataclasses.replace(given_, spans={**given_.spans, **over})
    method = AttnRank(profile=profile(llama, (1, 2, 3, 4, 5)), relevance=(1, 2, 3, 4, 5))
    assert method.rewritten(llama, given_) is given_
    moved = dataclasses.replace(method, relevance=(2, 4, 3, 1, 5)).rewritten(llama, given_)
    assert docs(moved) == [3, 0, 2, 1, 4]
    assert set(given_.spans) - set(moved.spans) == {"two", "late"}
    for name in ("user", "all"):
        assert moved.span(name) == given_.span(name)
        assert Counter(words(moved, name)) == Counter(words(given_, name))


@pytest.mark.parametrize("which", range(3))
def test_prompts_without_documents_are_refused(llama: HeadModel, which: int) -> None:
    method = methods(llama)[which]
    for spans, message in (
        ({"question": (3, 4)}, r"spans doc_0, doc_1, \.\.\. \(it has: question\)"),
        ({"doc_0": (2, 2)}, "doc_0 is .2, 2. in a prompt of 9 tokens"),
        ({"doc_0": (2, 10)}, "lie in the prompt"),
        ({"doc_0": (4, 6), "doc_1": (2, 5)}, "doc_1 and doc_0 overlap"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            method.rewritten(llama, Prompt(tuple(range(3, 12)), spans))
    with pytest.raises(HeadscopeError, match="changes the prompt, not the model"), method(llama):
        pass


@pytest.mark.parametrize("which", range(2))
def test_one_document_stays(llama: HeadModel, which: int) -> None:
    given_ = Prompt(tuple(range(3, 12)), {"doc_0": (2, 5)})
    assert methods(llama)[which].prepared(llama, given_)[1] is given_


@pytest.mark.parametrize("which", range(3))
def test_the_model_is_left_as_it_was(llama: HeadModel, which: int) -> None:
    given_, method = prompt(1), methods(llama)[which]
    plain = llama(list(given_.token_ids))
    before = {k: v.clone() for k, v in llama.hf.state_dict().items()}
    bound, found = method.prepared(llama, given_)
    assert bound == method
    assert docs(found) != [0, 1, 2, 3, 4]
    assert found.answer_ids == given_.answer_ids
    assert torch.equal(llama(list(given_.token_ids)), plain)
    assert not llama.stack.chain.entered
    for key, value in llama.hf.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionSorting(rounds=0), "at least once"),
        (lambda: AttentionSorting(heads=()), "at least one head"),
        (lambda: AttentionSorting(heads=["L99"]), "names no head"),
        (lambda: CalibratedRanking(at_once=0), "at least one prompt"),
    ],
)
def test_bad_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        make()


def test_what_does_not_fit_is_refused(llama: HeadModel) -> None:
    good = profile(llama, (1, 2, 3, 4, 5))
    for method, message in (
        (AttentionSorting(heads=["L3H0"]), "has no head L3H0"),
        (CalibratedRanking(dummy=" "), "at least one token"),
        (AttnRank(profile=profile(llama, (1, 2))), "2 slots and the prompt 5 documents"),
        (AttnRank(profile=good, relevance=(1, 2)), "each of 5 documents"),
        (AttnRank(profile=good, relevance=(1, 2, 3, 4, float("nan"))), "each of 5 documents"),
        (AttnRank(profile=good, question="asked"), "the span 'asked', and the prompt has"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            method.rewritten(llama, prompt(0))


@pytest.mark.model
def test_documents_of_the_eval_are_ordered(smollm2: HeadModel) -> None:
    task = DocumentsEval(samples=3, lengths=(160,), documents=3, others=2)
    rank = AttnRank(profile=profile(smollm2, (0.1, 0.3, 0.2)))
    for item in task.items(smollm2.tokenizer):
        ready, found = rank.prepared(smollm2, item.prompt)
        assert ready.site == "prompt"
        assert sorted(found.numbered("doc"))[1] == found.span("gold")
        sorted_ = AttentionSorting(rounds=2).rewritten(smollm2, found)
        for name in item.prompt.spans:
            assert Counter(words(sorted_, name)) == Counter(words(item.prompt, name))
            if name != "user":
                assert words(sorted_, name) == words(item.prompt, name)
