"""A planted choice of chunks, in layers that see far and that do not, and what is refused."""

import dataclasses

import definitions
import pytest
import torch
from conftest import opened
from definitions.longheads import PARAMETERS

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.longheads import Longheads
from headscope.prompts import Prompt

PROBE = Longheads(**PARAMETERS)


@pytest.mark.parametrize("window", [None, 3])
def test_the_chunks_that_the_last_query_asks_for_are_chosen(window: int | None) -> None:
    """Chunks 1 and 2 hold tokens 6 to 17 of a needle that takes 4 to 18."""
    case = definitions.cases(opened("gpt2"))[0]
    n, d = 44, 4
    q, k = torch.zeros(1, 2, n, d), torch.zeros(1, 1, n, d)
    k[0, 0, 6:18, 0] = k[0, 0, 30:38, 0] = 1.0  # the last two chunks look alike and are left out
    q[0, 0, 37, 0], q[0, 1, 37, 0] = 1.0, -1.0
    attention = Attention(
        layer=0, q=q, k=k, v=torch.zeros_like(k), scale=0.5, window=window,
        query_positions=torch.arange(n)[None], key_positions=torch.arange(n)[None],
        sink_logits=torch.full((2,), 9.0),
    )  # fmt: skip
    found = PROBE.measure(Attended(attention.z(), attention), case.reading)["longheads"]
    assert found[0] == pytest.approx(12 / 15)
    assert found[1] < 12 / 15


def test_where_a_sequence_begins_does_not_change_the_choice() -> None:
    """The same layer at later positions: everything is read relative to its chunk."""
    case = definitions.cases(opened("llama"))[1]
    a = case.attention
    assert a.rope is not None
    later = a.query_positions + 50
    moved = dataclasses.replace(
        a, q=a.rope.rotate(a.rope.unrotate(a.q, a.query_positions), later),
        k=a.rope.rotate(a.rope.unrotate(a.k, a.key_positions), later),
        query_positions=later, key_positions=later, known_lse=None, slots=None,
    )  # fmt: skip
    at_start, at_end = (PROBE.measure(Attended(x.z(), x), case.reading) for x in (a, moved))
    torch.testing.assert_close(at_start["longheads"], at_end["longheads"])


def test_too_few_chunks_are_refused() -> None:
    spans = {"needle": (40, 60)}
    with pytest.raises(HeadscopeError, match="'longheads' chooses among chunks only in more than"):
        Longheads().check(Prompt(tuple(range(160)), spans))
    Longheads().check(Prompt(tuple(range(161)), spans))
    with pytest.raises(HeadscopeError, match="at least one chunk"):
        Longheads(budget=0)


def test_a_rotation_that_cannot_be_taken_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("llama")
    odd = [dataclasses.replace(found, rotary="no pairs") for found in model.backend.layers]
    monkeypatch.setattr(model.backend, "layers", odd)
    with pytest.raises(HeadscopeError, match=r"'longheads' takes the rotation off.*layer 0.*no"):
        Longheads().check_model(model)
