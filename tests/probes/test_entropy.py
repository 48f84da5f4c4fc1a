import dataclasses
from math import log

import pytest
import torch
from definitions import cases

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.entropy import Entropy
from headscope.prompts import Prompt


def test_uniform_attention_is_as_wide_as_it_can_be(llama: headscope.HeadModel) -> None:
    case = cases(llama)[0]
    blank = case.attention.with_q(torch.zeros_like(case.attention.q))
    found = Entropy().measure(Attended(blank.z(), blank), case.reading)
    torch.testing.assert_close(found["entropy"], torch.ones(6))
    mean = sum(log(i + 1) for i in range(1, 44)) / 43
    torch.testing.assert_close(found["entropy_nats"], torch.full((6,), mean))


def test_rows_of_a_single_key_count_as_no_entropy(llama: headscope.HeadModel) -> None:
    case = cases(llama)[0]
    alone = dataclasses.replace(case.attention, window=1, known_lse=None)
    found = Entropy().measure(Attended(alone.z(), alone), case.reading)
    assert all(float(score.abs().max()) < 1e-5 for score in found.values())


def test_a_single_token_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'entropy' needs a row with more than one key"):
        Entropy().check(Prompt((3,)))
