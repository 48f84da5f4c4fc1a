"""Prompts that have no documents, and rows that see none."""

import dataclasses

import pytest
import torch
from definitions import cases

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.basin import Basin
from headscope.prompts import Prompt


def test_two_documents_are_too_few() -> None:
    with pytest.raises(HeadscopeError, match="'basin' needs the spans doc_0, doc_1 and doc_2"):
        Basin().check(Prompt(tuple(range(9)), {"doc_0": (1, 3), "doc_1": (3, 6)}))


def test_a_basin_has_its_ends_above_its_middle(llama: headscope.HeadModel) -> None:
    case = cases(llama)[0]
    weights = torch.full((44,), -torch.inf)
    for slot, amount in enumerate((4.0, 1.0, 1.0, 2.0)):
        weights[3 + 7 * slot : 10 + 7 * slot] = torch.tensor(amount).log()
    attention = case.attention.with_q(torch.zeros_like(case.attention.q))
    for key, weight in enumerate(weights.tolist()):
        attention = attention.with_bias([key], weight)
    found = Basin(skip=0).measure(Attended(case.attention.z(), attention), case.reading)
    expected = {"basin": 2 / 2, "basin_first": 3 / 2, "basin_last": 1 / 2}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], torch.full((6,), value))


def test_a_window_that_sees_no_document_scores_zero(llama: headscope.HeadModel) -> None:
    case = cases(llama)[0]
    attention = dataclasses.replace(case.attention, window=3, known_lse=None)
    found = Basin().measure(Attended(case.attention.z(), attention), case.reading)
    assert all(bool((score == 0).all()) for score in found.values())
