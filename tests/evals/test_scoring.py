"""Forced answers: many ablations and many choices in one pass give what single passes give."""

from itertools import product
from typing import Any

import pytest
import torch
from conftest import opened

from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.prefix import Prefix
from headscope.evals.scoring import Scored, scored
from headscope.interventions.ablate import Ablate, Reference
from headscope.model import HeadModel
from headscope.prompts import Prompt, Repeated

IDS = tuple(range(4, 40))


def item(**rest: Any) -> Item:
    return Item(Prompt(IDS[:24], answer="x", answer_ids=IDS[24:28]), **rest)


def by_hand(model: HeadModel, prompt: Prompt, answer: tuple[int, ...]) -> list[float]:
    """Nats of each token of an answer, from a pass of its own over all of them."""
    logits = model([*prompt.token_ids, *answer], prompt_length=len(prompt)).log_softmax(-1)[0]
    n = len(prompt)
    return [float(logits[n - 1 + i, token]) for i, token in enumerate(answer)]


def close(found: Scored, want: Scored) -> None:
    assert found.logp == pytest.approx(want.logp, abs=1e-4)
    assert (found.exact, found.tokens) == (want.exact, want.tokens)
    if want.margin is not None:
        assert found.margin == pytest.approx(want.margin, abs=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_the_answer_is_scored_as_by_hand(architecture: str, shared: bool) -> None:
    model = opened(architecture)
    each = item()
    prefix = Prefix.of(model, each.prompt) if shared else None
    want = by_hand(model, each.prompt, each.prompt.answer_ids)
    for _ in range(2):  # the prefix is left as it was found
        (found,) = scored(model, each, None, prefix)
        assert found.logp == pytest.approx(sum(want), abs=1e-3)
        assert found.margin is None
        assert found.tokens == 4
    (some,) = scored(model, item(counted=(False, True, False, True)), None, prefix)
    assert some.logp == pytest.approx(want[1] + want[3], abs=1e-3)
    assert some.tokens == 2


@pytest.mark.parametrize("shared", [False, True])
def test_choices_are_scored_as_by_hand(llama: HeadModel, shared: bool) -> None:
    """Single tokens, answers that begin alike, and answers of unlike length, together."""
    right, wrong = ((50,), (IDS[24], 51)), ((52,), (IDS[24], IDS[25], 53, 54, 55), (56, 57))
    each = item(right=right, wrong=wrong)
    prefix = Prefix.of(llama, each.prompt) if shared else None
    said = {
        answer: sum(by_hand(llama, each.prompt, answer))
        for answer in (each.prompt.answer_ids, *right, *wrong)
    }
    good = torch.tensor([said[each.prompt.answer_ids], *(said[a] for a in right)])
    bad = torch.tensor([said[a] for a in wrong])
    (found,) = scored(llama, each, None, prefix)
    assert found.logp == pytest.approx(said[each.prompt.answer_ids], abs=1e-3)
    assert found.margin == pytest.approx(float(good.logsumexp(0) - bad.logsumexp(0)), abs=1e-3)
    assert found.exact == bool(good.max() > bad.max())


@pytest.mark.parametrize("mode", ["zero", "mean", "uniform", "resample"])
@pytest.mark.parametrize("part", ["all", "prefill", "answer", "decode"])
@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_rows_of_a_batch_are_the_ablations_one_by_one(mode: Any, part: Any, backend: str) -> None:
    model = opened("llama", backend)
    reference = None
    if mode in ("mean", "resample"):
        reference = Reference.measure(model, Repeated(samples=1, block=8).prompts(model.tokenizer))
    sets = [[], [(0, 0)], [(1, 3), (0, 1)], list(product((0, 1), range(4)))]
    masks = [Ablate(heads, mode, part, reference) for heads in sets]
    each = item(wrong=((50,), (51, 52)))
    prefix = Prefix.of(model, each.prompt) if part in ("answer", "decode") else None
    together = scored(model, each, masks, prefix)
    assert len({round(s.logp, 3) for s in together}) > 1
    for mask, found in zip(masks, together, strict=True):
        with mask(model):
            want = by_hand(model, each.prompt, each.prompt.answer_ids)
            close(scored(model, each)[0], found)
        assert found.logp == pytest.approx(sum(want), abs=1e-3)


def test_a_streamed_answer_is_the_same_answer_with_its_curve(llama: HeadModel) -> None:
    prompt = Prompt(IDS[:3], answer="x", answer_ids=IDS[3:33])
    whole = by_hand(llama, prompt, prompt.answer_ids)
    for chunk in (0, 1, 7, 64):
        (found,) = scored(llama, Item(prompt, chunk=chunk, buckets=3))
        assert found.logp == pytest.approx(sum(whole), abs=1e-3)
        want = [sum(whole[i : i + 10]) / 10 for i in (0, 10, 20)]
        assert found.curve == pytest.approx(want, abs=1e-3)
    masks = [Ablate([]), Ablate([(0, 1)])]
    found = scored(llama, Item(prompt, chunk=8), masks)
    for each, want in zip(found, scored(llama, Item(prompt), masks), strict=True):
        close(each, want)


def test_what_cannot_be_scored_is_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="expects no answer"):
        scored(llama, Item(Prompt((3, 4))))
    assert Prefix.of(llama, Prompt((3,), answer="x", answer_ids=(4,))) is None
    with pytest.raises(HeadscopeError, match="differ in their heads alone"):
        scored(llama, item(), [Ablate([(0, 0)]), Ablate([(0, 0)], part="answer")])
    with pytest.raises(HeadscopeError, match="no head L9H0"):
        scored(llama, item(), [Ablate([(9, 0)])])
