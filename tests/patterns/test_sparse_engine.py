"""The engine against a dense float64 softmax over what each rule's definition leaves visible."""

import dataclasses

import pytest
import rules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patterns.layers import Drawn, layers
from torch import Tensor
from torch.testing import assert_close

from headscope import blocks
from headscope.attention import Attention
from headscope.catalog import patterns, selectors
from headscope.engines import Attended
from headscope.patterns.rules import Rule
from headscope.sparsity.engine import attend_sparsely

NAMES = [*patterns(), *selectors()]


def check(drawn: Drawn, of_heads: list[Rule], rows: Tensor | None = None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if drawn.small_blocks:  # of a few rows, rather than all in one
            patch.setitem(blocks._BLOCK, "cpu", 200)
            patch.setitem(blocks._NEAR, "cpu", 3)
        _check(drawn, of_heads, rows)


def _check(drawn: Drawn, of_heads: list[Rule], rows: Tensor | None) -> None:
    a = drawn.attention()
    seen = rules.mask(a, of_heads, drawn.extra())
    if rows is not None:
        seen = seen | ~rows[:, None, :, None]
    pattern, lse = rules.softmaxed(a, a.q, rules.visible(a) & seen, drawn.extra(), a.sink_logits)
    group = a.q.shape[1] // a.k.shape[1]
    z = pattern @ a.v.repeat_interleave(group, 1)
    done = attend_sparsely(a, of_heads, rows)
    assert_close(done.z, z)
    assert_close(done.lse, lse)
    # What was really run answers for itself.
    assert_close(dataclasses.replace(done.attention, known_lse=None).dense(), pattern)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_rule_of_all_heads(name: str, data: st.DataObject) -> None:
    drawn = data.draw(layers())
    rule = data.draw(rules.drawn(name))
    check(drawn, [rule] * drawn.layer["q"].shape[1])


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_rules_that_differ_by_head(data: st.DataObject) -> None:
    drawn = data.draw(layers())
    few = data.draw(st.lists(st.sampled_from(NAMES).flatmap(rules.drawn), min_size=1, max_size=3))
    shape = drawn.layer["q"].shape
    of_heads = [data.draw(st.sampled_from(few)) for _ in range(shape[1])]
    rows = torch.tensor(data.draw(st.lists(st.booleans(), min_size=shape[2], max_size=shape[2])))
    check(drawn, of_heads, rows.expand(shape[0], -1) if data.draw(st.booleans()) else None)


@pytest.mark.parametrize("name", list(selectors()))
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_more_tokens_give_selectors_more_to_choose_from(name: str, data: st.DataObject) -> None:
    drawn = data.draw(layers(most=33))
    rule = data.draw(rules.drawn(name))
    check(drawn, [rule] * drawn.layer["q"].shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_sees_nothing_is_zero(name: str) -> None:
    """A query before all keys that are held, and one that is padding."""
    a = Attention(
        layer=0,
        q=torch.randn(1, 2, 4, 8),
        k=torch.randn(1, 1, 4, 8),
        v=torch.randn(1, 1, 4, 8),
        scale=1.0,
        query_positions=torch.tensor([[-1, 0, 1, 2]]),
        key_positions=torch.tensor([[-1, -1, 1, 2]]),
    )
    done: Attended = attend_sparsely(a, [{**patterns(), **selectors()}[name]()] * 2)
    assert not done.z[:, :, :2].any()
    assert bool((done.lse[:, :, :2] == -torch.inf).all())
    assert bool(done.lse[:, :, 2:].isfinite().all())
