import dataclasses

import pytest
from definitions import cases

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.fai import Fai
from headscope.prompts import Prompt


def test_a_window_that_hides_the_horizon_leaves_nothing(llama: headscope.HeadModel) -> None:
    case = cases(llama)[0]
    near = dataclasses.replace(case.attention, window=10, known_lse=None)
    found = Fai(lo=10, hi=12).measure(Attended(near.z(), near), case.reading)
    assert found["fai"].tolist() == [0.0] * 6


def test_a_horizon_has_to_fit_and_to_be_one() -> None:
    Fai().check(Prompt(tuple(range(51))))
    with pytest.raises(HeadscopeError, match="'fai' needs more than hi = 50 tokens"):
        Fai().check(Prompt(tuple(range(50))))
    with pytest.raises(HeadscopeError, match="lo <= hi"):
        Fai(lo=5, hi=4)
