"""Selectors by kernels choose what the reference does."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from waiting import never_waiting

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.kernels.choice import using
from headscope.patterns.rules import Rule
from headscope.patterns.selectors import (
    BlockTopK,
    FlexPrefill,
    HierarchicalTopK,
    ProxyAttn,
    SelfSimilarity,
    VerticalSlash,
)
from headscope.patterns.selectors.choosing import best, fewest
from headscope.patterns.selectors.grid import Grid
from headscope.patterns.selectors.lines import Lines, blocks_crossed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RULES = [
    VerticalSlash(20, 30, 24, 4, 5, 20),
    BlockTopK(20, 4, 20),
    FlexPrefill(0.7, 0.3, 4, 20),
    FlexPrefill(0.7, 0.0, 4, 20),
    SelfSimilarity(0.6, 0.1, 4, 20),
    HierarchicalTopK(20, 4, 4),
    ProxyAttn(0.6, 4, 20),
]


def text(
    queries: int, past: int = 0, first_key: int = 0, batch: int = 1, heads: int = 4, d: int = 64,
    **rest: Any,
) -> Attention:  # fmt: skip
    """Grouped heads, queries behind keys that were there before them."""
    generator, n = torch.Generator().manual_seed(0), queries + past

    def normal(heads: int, n: int) -> Tensor:
        x = torch.randn(batch, heads, n, d, generator=generator)
        return x.to(DEVICE, torch.float16)

    q, k, v = normal(heads, queries), normal(2, n), normal(2, n)
    positions = (torch.arange(n, device=DEVICE) + first_key).expand(batch, -1)
    return Attention(
        0, q, k, v, d**-0.5, positions[:, past:], positions,
        slots=Slots(past + first_key, first_key, False), **rest,
    )  # fmt: skip


def both(rule: Rule, a: Attention) -> None:
    """The same choices, but for a few that rounding decides."""
    with using("triton"):
        found = rule.resolve(a)
    with using("reference"):
        want = rule.resolve(a)
    assert found.first_block == want.first_block
    for name in ("blocks", "columns"):
        mine, its = getattr(found, name), getattr(want, name)
        assert (mine is None) == (its is None)
        if mine is not None:
            assert mine.shape == its.shape
            assert int((mine != its).sum()) <= max(2, mine.numel() // 1000), name


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    ("queries", "past", "first_key"), [(110, 0, 0), (37, 70, 0), (60, 33, 40), (1, 99, 0)]
)
def test_kernels_choose_what_the_reference_does(
    rule: Rule, queries: int, past: int, first_key: int
) -> None:
    both(rule, text(queries, past, first_key))


@pytest.mark.parametrize("rule", RULES[:3], ids=str)
def test_soft_caps_and_learned_sinks_count(rule: Rule) -> None:
    sinks = torch.linspace(-1, 3, 4, device=DEVICE, dtype=torch.float16)
    both(rule, text(70, 5, batch=2, d=96, softcap=1.5, sink_logits=sinks))


@pytest.mark.parametrize(("queries", "past", "last"), [(200, 0, 64), (150, 150, 100), (20, 51, 64)])
@pytest.mark.parametrize("first_key", [0, 7])
def test_sums_of_lines(queries: int, past: int, last: int, first_key: int) -> None:
    a = text(queries, past, first_key, batch=2)
    with using("triton"):
        found = Lines.of(a, last)
    with using("reference"):
        want = Lines.of(a, last)
    assert torch.equal(found.late, want.late)
    assert_close(found.columns, want.columns, atol=1e-5, rtol=1e-3)
    assert_close(found.diagonals, want.diagonals, atol=1e-5, rtol=1e-3)
    assert_close(found.columns.sum(-1), found.diagonals.sum(-1))


def test_wide_heads() -> None:
    a = text(70, heads=2, d=256)
    for last in (64, 70):
        with using("triton"):
            found = Lines.of(a, last)
        with using("reference"):
            want = Lines.of(a, last)
        assert_close(found.columns, want.columns, atol=1e-5, rtol=1e-3)


def test_means_of_blocks() -> None:
    a = text(70, 41, 13, batch=2, d=96)
    for block in (7, 64, 100):
        with using("triton"):
            found = Grid.of(a, block)
        with using("reference"):
            want = Grid.of(a, block)
        assert (found.kernels, want.kernels) == (True, False)
        assert_close(found.mean_queries(a.q), want.mean_queries(a.q))
        assert_close(found.mean_keys(a.k), want.mean_keys(a.k))
    turned = a.k.transpose(2, 3).contiguous().transpose(2, 3)
    assert_close(found.mean_keys(turned), want.mean_keys(a.k))


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_the_best_are_the_same_with_ties_and_infinities(data: st.DataObject) -> None:
    rows, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    numbers = st.sampled_from([-torch.inf, torch.inf, 0.0, -0.0, -2.5, -1e-30, 1.0, 3.25, 1e30])
    drawn = data.draw(st.lists(numbers, min_size=rows * n, max_size=rows * n))
    scores = torch.tensor(drawn, device=DEVICE).view(rows, n)
    count = data.draw(st.integers(-1, n + 2))
    each = torch.tensor([data.draw(st.integers(0, n)) for _ in range(rows)], device=DEVICE)
    for wanted in (count, each):
        with using("reference"):
            want = best(scores, wanted)
        assert torch.equal(best(scores, wanted), want)


def test_the_best_of_long_rows() -> None:
    scores = torch.randint(-500, 500, (3, 9000), device=DEVICE).float()
    scores[0, 100:] = -torch.inf
    for count in (0, 1, 700, 9000):
        with using("reference"):
            want = best(scores, count)
        assert torch.equal(best(scores, count), want)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_the_fewest_are_the_same_with_ties_and_zeros(data: st.DataObject) -> None:
    rows, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    numbers = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 64.0])  # whose sums are exact
    drawn = data.draw(st.lists(numbers, min_size=rows * n, max_size=rows * n))
    weights = torch.tensor(drawn, device=DEVICE).view(rows, n)
    share = data.draw(st.sampled_from([0.125, 0.5, 0.75, 1.0]))
    with using("reference"):
        want = fewest(weights, share)
    assert torch.equal(fewest(weights, share), want)


def test_the_fewest_of_long_rows() -> None:
    weights = torch.randint(0, 50, (3, 9000), device=DEVICE).float()
    weights[0, 100:] = 0
    for share in (0.25, 1.0):
        with using("reference"):
            want = fewest(weights, share)
        assert torch.equal(fewest(weights, share), want)


def test_blocks_that_diagonals_cross() -> None:
    a = text(70, 41, 3, batch=2)
    diagonals = torch.rand(2, 4, 114, device=DEVICE) < 0.04
    for block in (1, 5, 64):
        with using("triton"):
            found = blocks_crossed(diagonals, Grid.of(a, block))
        with using("reference"):
            want = blocks_crossed(diagonals, Grid.of(a, block))
        assert torch.equal(found, want)


def test_other_attentions_are_left_to_the_reference() -> None:
    a = text(70)
    padded = dataclasses.replace(a, slots=Slots(0, 0, True))
    ahead = dataclasses.replace(a, q=a.q[:, :, :9], query_positions=a.query_positions[:, :9])
    wide = dataclasses.replace(a, q=a.q.float(), k=a.k.float())
    for other in (
        padded, ahead, wide, dataclasses.replace(a, slots=None), dataclasses.replace(a, window=5),
        dataclasses.replace(a, chunk=8), a.with_bias([1], 1.0),
    ):  # fmt: skip
        assert not Grid.of(other, 16).kernels
    assert Grid.of(a, 16).kernels


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize(
    "rule",
    [VerticalSlash(512, 2048), BlockTopK(128, 64), FlexPrefill(), SelfSimilarity(),
     HierarchicalTopK()],
    ids=str,
)  # fmt: skip
def test_long_texts_on_a_gpu_and_no_waiting_for_it(rule: Rule) -> None:
    a = text(9000, 3000, d=128, heads=8)
    a = dataclasses.replace(a, **{x: getattr(a, x).bfloat16() for x in ("q", "k", "v")})
    both(rule, a)
    with never_waiting():
        rule.resolve(a)
