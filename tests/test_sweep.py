"""The shared pass over all rows against the dense oracle, block by block in every way it is cut."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention import layers, plain
from torch.testing import assert_close

import headscope.blocks
import headscope.sweep
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.patterns import Streaming


@pytest.fixture(autouse=True, params=[1, 3, 128], ids="rows{}".format, scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything again with blocks of one row, of a few rows, and all in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(headscope.blocks._NEAR, "cpu", request.param)
        yield


def check(found: headscope.sweep.Sweep, a: Attention, clip: int, extra: Any = 0.0) -> None:
    want = oracle.dense(a, extra)
    p = want.pattern
    key = a.key_positions if a.key_positions.ndim == 3 else a.key_positions[:, None]
    key = key.repeat_interleave(a.n_heads // key.shape[1], 1)[:, :, None]
    distance = (a.query_positions[:, None, :, None] - key).clamp(min=0)
    share = 1 - p.sum(-1)
    entropy = -torch.xlogy(p, p).sum(-1)
    if a.sink_logits is not None:
        entropy = entropy - torch.xlogy(share, share)
    blind = want.lse == -torch.inf
    near = {"atol": 1e-5, "rtol": 1e-5} if a.q.dtype == torch.float32 else {}
    same = {"check_dtype": False, **near}
    assert_close(found.entropy, entropy.masked_fill(blind, 0), **same)
    assert_close(found.distance, (p * distance).sum(-1), **same)
    assert_close(found.clipped_distance, (p * distance.clamp(max=clip)).sum(-1), **same)
    assert_close(found.column_sums, p.sum(2), **same)
    seen = oracle.visible(a).sum(2)
    assert_close(found.viewers.expand_as(seen), seen, check_dtype=False)
    rows = oracle.visible(a).sum(3)
    assert_close(found.visible.expand_as(rows), rows, check_dtype=False)
    assert_close(found.column_means, p.sum(2) / seen.clamp(min=1), **same)


@settings(deadline=None, max_examples=80)
@given(layers(), st.integers(0, 12))
def test_a_sweep_equals_the_dense_oracle(layer: dict[str, Any], clip: int) -> None:
    a = Attention(**layer)
    check(a.sweep(clip), a, clip)
    known = dataclasses.replace(a, known_lse=a.lse())
    check(known.sweep(clip), a, clip)


@settings(deadline=None, max_examples=50)
@given(layers(torch.float32), st.integers(1, 6))
def test_edits_and_single_precision(layer: dict[str, Any], clip: int) -> None:
    a = Attention(**layer)
    check(a.sweep(clip), a, clip)
    amount = torch.linspace(-2, 1, a.n_queries)
    pattern = Streaming(1, 3)
    key = a.keys_by_head()[:, :, None]
    hidden = ~pattern.mask(a.query_positions[:, None, :, None], key)
    extra = torch.zeros(len(a.q), a.n_heads, a.n_queries, a.n_keys)
    extra[..., 0] += amount
    extra[:, :1] = torch.where(hidden[:, :1], -torch.inf, extra[:, :1])
    edited = a.with_bias([0], amount).with_pattern(pattern, [0])
    check(edited.sweep(clip), a, clip, extra)


@settings(deadline=None, max_examples=15)
@given(layers(), st.integers(1, 4))
@torch.enable_grad()
def test_a_sweep_is_differentiable(layer: dict[str, Any], clip: int) -> None:
    a = Attention(**layer)
    inputs = (a.q.clone().requires_grad_(), a.k.clone().requires_grad_())

    def answers(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, ...]:
        s = dataclasses.replace(a, q=q, k=k).sweep(clip)
        return s.entropy, s.distance, s.clipped_distance, s.column_sums

    assert torch.autograd.gradcheck(answers, inputs, fast_mode=True)


def test_short_distances_keep_their_digits_far_from_the_start() -> None:
    """Every row looks at itself and the one before, behind a thousand others."""
    n = 1000
    a = plain(n)
    bias = torch.tensor(40.0)
    near = a.with_pattern(Streaming(0, 2)).with_bias(Streaming(0, 2), bias)
    strict = dataclasses.replace(a, window=2)
    for some in (near, strict):
        found = some.sweep(128)
        want = some.row_stats(clip=128)
        assert_close(found.distance, want.distance, atol=1e-4, rtol=1e-4)
        assert_close(found.clipped_distance, want.clipped_distance, atol=1e-4, rtol=1e-4)
    found, want = a.sweep(128), a.row_stats(clip=128)
    assert_close(found.entropy, want.entropy, atol=1e-5, rtol=1e-5)
    assert_close(found.distance, want.distance, atol=1e-3, rtol=1e-5)
    assert_close(found.clipped_distance, want.clipped_distance, atol=1e-3, rtol=1e-5)
    assert_close(found.column_means, a.column_means(), atol=1e-6, rtol=1e-4)


def test_a_mask_of_each_head_and_no_queries() -> None:
    a = plain(6)
    seen = torch.rand(1, a.n_heads, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.3
    check(dataclasses.replace(a, mask=seen).sweep(2), dataclasses.replace(a, mask=seen), 2)
    none = dataclasses.replace(a, q=a.q[:, :, :0], query_positions=a.query_positions[:, :0])
    assert none.sweep(2).column_sums.eq(0).all()
    assert none.mass(Streaming(1, 2)).shape == (1, a.n_heads, 0)


def test_what_stands_in_padding_is_not_read() -> None:
    a = plain(6)
    padded = dataclasses.replace(
        a,
        k=torch.cat((torch.full_like(a.k[:, :, :1], torch.nan), a.k[:, :, 1:]), 2),
        key_positions=torch.tensor([[-1, 0, 1, 2, 3, 4]]),
        query_positions=torch.tensor([[-1, 0, 1, 2, 3, 4]]),
        slots=Slots(0, 0, True),
    )
    rows, keys = torch.tensor([[2, 4]]), torch.tensor([[0, 1, 2]])
    assert padded.mass(Streaming(1, 3)).isfinite().all()
    assert padded.mass_on_sets(rows, keys).isfinite().all()
    assert padded.sweep(2).column_sums.isfinite().all()
