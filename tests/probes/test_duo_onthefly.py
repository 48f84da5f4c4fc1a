"""The area under the attention of mean queries, where it is known beforehand."""

import dataclasses

import definitions
import pytest
import torch
from conftest import opened

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.duo_onthefly import DuoOnthefly


def test_keys_of_zeros_are_attended_to_evenly_and_no_further_than_the_window() -> None:
    for name, seen in (("llama", 20), ("mistral", 8)):
        case = definitions.cases(opened(name))[0]
        even = dataclasses.replace(case.attention, k=torch.zeros_like(case.attention.k))
        attended = Attended(case.attention.z(), even)
        score = DuoOnthefly(length=20).measure(attended, case.reading)["duo_onthefly"]
        torch.testing.assert_close(score, torch.full_like(score, (seen + 1) / 2 / 20))


def test_a_layer_without_rotation_prefers_no_position() -> None:
    case = definitions.cases(opened("llama"))[0]
    plain = Attended(case.attention.z(), dataclasses.replace(case.attention, rope=None))
    score = DuoOnthefly(length=20).measure(plain, case.reading)["duo_onthefly"]
    torch.testing.assert_close(score, torch.full_like(score, 21 / 40))


def test_a_single_position_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'duo_onthefly' needs a length"):
        DuoOnthefly(length=1)
