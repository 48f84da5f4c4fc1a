"""Sentences that cannot be compared, and rows that see none."""

import dataclasses

import definitions
import pytest
from conftest import opened

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.sentence import Sentence
from headscope.prompts import Prompt

TOKENS = tuple(range(30))


def test_a_row_that_sees_no_sentence_points_at_none() -> None:
    case = definitions.cases(opened("llama"))[0]
    blind = dataclasses.replace(case.attention, window=2, known_lse=None)
    found = Sentence().measure(Attended(blind.z(), blind), case.reading)
    assert found["sentence"].tolist() == found["sentence_share"].tolist() == [0.0] * 6


def test_a_single_sentence_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'sentence' compares sentences and finds 1"):
        Sentence().check(Prompt(TOKENS, {"needle": (4, 9), "sentence_0": (4, 9)}))


def test_a_needle_outside_all_sentences_is_refused() -> None:
    spans = {"needle": (4, 9), "sentence_0": (0, 4), "sentence_1": (9, 20)}
    with pytest.raises(HeadscopeError, match="no sentence that holds the span 'needle'"):
        Sentence().check(Prompt(TOKENS, spans))
    Sentence().check(Prompt(TOKENS, spans | {"sentence_1": (8, 20)}))
