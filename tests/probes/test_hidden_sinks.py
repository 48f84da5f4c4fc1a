import pytest
import torch

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Reading
from headscope.probes.hidden_sinks import HiddenSinks
from headscope.prompts import Prompt


def test_a_prompt_of_too_few_rows_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'hidden_sinks' needs more than min_rows = 64"):
        HiddenSinks().check(Prompt(tuple(range(64))))


def test_the_first_token_and_keys_that_few_rows_see_are_none(llama: headscope.HeadModel) -> None:
    ids = torch.arange(3, 83)
    seen: list[Attended] = []
    with llama.observed(seen.append):
        llama(ids[None])
    reading = Reading(Prompt(tuple(ids.tolist())), llama, ids, ids[:0], ids[:0])
    found = [HiddenSinks(threshold=0.0).measure(attended, reading) for attended in seen]
    # Keys 1 to 16 are seen by 64 rows or more of 80.
    assert all(bool((scores["hidden_sink_count"] == 16).all()) for scores in found)
