"""What is measured on a prompt before its documents are reweighed, and what is refused."""

from math import log
from typing import Any

import pytest
import torch
from conftest import opened
from torch.testing import assert_close

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.calibrated_attention import CalibratedAttention
from headscope.interventions.calibrated_ranking import CalibratedRanking
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

TOKENS = torch.randint(3, 97, (1, 24), generator=torch.Generator().manual_seed(4))
SPANS = {"doc_0": (1, 6), "doc_1": (7, 11), "doc_2": (11, 17), "question": (18, 24)}
PROMPT = Prompt(tuple(TOKENS[0].tolist()), SPANS)
DOCUMENTS = [(1, 6), (7, 11), (11, 17)]


def last_rows(model: HeadModel) -> dict[int, torch.Tensor]:
    """Attention of the prompt's last token on each document, [head, document], by layer."""
    found = {}

    def look(attended: Attended) -> None:
        row = attended.attention.rows([23])[0, :, 0]
        found[attended.attention.layer] = torch.stack(
            [row[:, a:b].sum(-1) for a, b in DOCUMENTS], -1
        )

    with model.observed(look):
        model(TOKENS, prompt_length=24)
    return found


def test_amounts_are_measured_on_the_prompt(llama: HeadModel) -> None:
    scores = CalibratedRanking(dummy="w7 w9").scores(llama, PROMPT)
    bound, prompt = CalibratedAttention(dummy="w7 w9", temperature=0.01).prepared(llama, PROMPT)
    assert prompt is PROMPT
    assert bound.documents == tuple(DOCUMENTS)
    assert bound.layers == (1, 2)
    assert bound.prepared(llama, PROMPT)[0] is bound
    total = sum(torch.tensor(rel / 0.01).exp() for rel in scores.calibrated)
    want = [
        rel / 0.01 - float(total.log()) - log(attention)
        for rel, attention in zip(scores.calibrated, scores.attention, strict=True)
    ]
    assert bound.amounts == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_coldest_gives_all_to_one_document(architecture: str) -> None:
    model = opened(architecture)
    rel = torch.tensor(CalibratedRanking().scores(model, PROMPT).calibrated)
    bound, _ = CalibratedAttention(temperature=1e-6).prepared(model, PROMPT)
    plain = last_rows(model)
    with bound(model):
        found = last_rows(model)
    assert torch.equal(found[0], plain[0])
    # The first changed layer sees what it saw before, so that its sum has to stay.
    assert_close(found[1].sum(-1), plain[1].sum(-1))
    for layer in (1, 2):
        assert_close(found[layer][:, rel.argmax()], found[layer].sum(-1))


def test_one_document_leaves_all_as_it_is(llama: HeadModel) -> None:
    one = Prompt(PROMPT.token_ids, {"doc_0": (2, 9)})
    bound, _ = CalibratedAttention(part="all").prepared(llama, one)
    plain = llama(TOKENS)
    with bound(llama):
        assert_close(llama(TOKENS), plain, atol=1e-4, rtol=1e-4)


def test_a_scope_needs_ranges(llama: HeadModel) -> None:
    with (
        CalibratedAttention()(llama),
        pytest.raises(HeadscopeError, match=r"method\.prepared\(model, prompt\) first"),
    ):
        llama(TOKENS, prompt_length=24)
    assert not llama.stack.chain.entered


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CalibratedAttention(temperature=0.0), "temperature above 0"),
        (lambda: CalibratedAttention(((1, 2), (3, 4))), "amounts for each of 2 ranges"),
        (lambda: CalibratedAttention(((1, 2),), amounts=(1, 2)), "amounts for each of 1 range"),
        (lambda: CalibratedAttention(((1, 2),), amounts=(float("inf"),)), "finite amounts"),
        (lambda: CalibratedAttention(((3, 5), (1, 4)), amounts=(1, 2)), "overlap"),
        (lambda: CalibratedAttention(((2, 2),), amounts=(1,)), "holds no token"),
    ],
)
def test_bad_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        make()


def test_prompts_that_do_not_fit_are_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="doc_0, doc_1"):
        CalibratedAttention().prepared(llama, Prompt((3, 4, 5)))
    with pytest.raises(HeadscopeError, match="2 amounts, and the prompt has 3 documents"):
        CalibratedAttention(amounts=(1, 2)).prepared(llama, PROMPT)
