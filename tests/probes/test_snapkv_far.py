"""SnapKV's observation window on uniform attention, and what the probe refuses."""

import dataclasses

import definitions
import pytest
import torch
from conftest import opened
from definitions.snapkv_far import PARAMETERS

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.snapkv_far import SnapkvFar
from headscope.prompts import Prompt

PROBE = SnapkvFar(**PARAMETERS)


def test_a_uniform_head_holds_what_is_kept() -> None:
    case = definitions.cases(opened("llama"))[0]
    uniform = dataclasses.replace(
        case.attention, q=torch.zeros_like(case.attention.q), known_lse=None
    )
    found = PROBE.measure(Attended(uniform.z(), uniform), case.reading)
    far = sum((38 - 12 - 2) / (i + 1) for i in range(30, 38)) / 8
    torch.testing.assert_close(found["snapkv_far"], torch.full((6,), far))
    torch.testing.assert_close(found["snapkv_top"], torch.full((6,), 0.2))


def test_a_row_that_sees_no_prefix_has_no_votes() -> None:
    case = definitions.cases(opened("llama"))[0]
    blind = dataclasses.replace(case.attention, window=1, known_lse=None)
    found = PROBE.measure(Attended(blind.z(), blind), case.reading)
    assert found["snapkv_far"].tolist() == found["snapkv_top"].tolist() == [0.0] * 6


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'snapkv_far' needs more than 68 tokens"):
        SnapkvFar().check(Prompt(tuple(range(68))))
    SnapkvFar().check(Prompt(tuple(range(69))))
    with pytest.raises(HeadscopeError, match="odd number"):
        SnapkvFar(kernel=4)
    with pytest.raises(HeadscopeError, match="keep above 0"):
        SnapkvFar(keep=0.0)
