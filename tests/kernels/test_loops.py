"""What the prefill kernel does one way for few tokens and another way for many, in both ways."""

from collections.abc import Iterator

import pytest
import torch
from test_prefill import check, layer

from headscope.catalog import selectors
from headscope.kernels.api import sparse_attention
from headscope.patterns import Full, Sharded, Streaming
from headscope.patterns.power_of_two import PowerOfTwo


def forget() -> None:
    from headscope.kernels import mixed, plan  # not before kernels are interpreted

    mixed.prepare.cache_clear()
    plan.plan.cache_clear()


@pytest.fixture
def forgetting() -> Iterator[None]:
    """Nothing is known of other plans, nor of these afterwards."""
    forget()
    yield
    forget()


@pytest.mark.usefixtures("forgetting")
@pytest.mark.parametrize(("few", "short"), [(0, 0), (0, 2**15), (1000, 0)])
def test_one_loop_or_two_and_lists_of_either_width(
    few: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headscope.kernels import plan
    from headscope.kernels.tiles import Reach, Span

    monkeypatch.setattr(plan, "_FEW", few)
    monkeypatch.setattr(plan, "_SHORT", short)
    # More tiles that are seen in part than a program knows before it begins.
    comb = Sharded(sink=3, window=20, block=16, stride=2, offset=1)
    a = layer(queries=500, group=4)
    check(a, [Full(), Streaming(70, 100), Streaming(0, 1), Streaming(3, 400)])
    check(a, [comb, Full(), PowerOfTwo(window=64), Streaming(100, 9)])
    text = plan.Text(0, 0, 0, Span(0, 500, 0, 500))
    found = plan.plan(((0, comb),), (text,), Reach(), a.q.device)
    assert found.more
    assert found.joined == (few > 0)
    assert found.partly.dtype == (torch.int16 if short else torch.int32)


@pytest.mark.usefixtures("forgetting")
def test_a_full_head_is_the_same_in_every_kind_of_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """And beside heads that make the kernel another one."""
    from headscope.kernels import plan

    a = layer(queries=150, kv_heads=1, group=3)
    blocks = selectors()["block_top_k"]()
    found = []
    for few in (0, 1000):
        monkeypatch.setattr(plan, "_FEW", few)
        forget()
        for other in (Full(), Streaming(0, 1), PowerOfTwo(window=64), blocks):
            given = [other, Full(), other]
            out = sparse_attention(a.q, a.k, a.v, given, impl="triton", dispatch="single")
            assert out.lse is not None
            found.append((out.z[:, 1], out.lse[:, 1]))
    for z, lse in found[1:]:
        assert torch.equal(z, found[0][0])
        assert torch.equal(lse, found[0][1])


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("lengths", [None, [60, 40]])
def test_without_a_log_sum_exp(impl: str, lengths: list[int] | None) -> None:
    a = layer(queries=100)
    given = [Full(), Streaming(4, 9)]
    out = sparse_attention(a.q, a.k, a.v, given, impl=impl, lengths=lengths)
    bare = sparse_attention(a.q, a.k, a.v, given, impl=impl, lengths=lengths, with_lse=False)
    assert out.lse is not None
    assert bare.lse is None
    assert torch.equal(bare.z, out.z)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("from_tokens", [0, 2**20])
def test_either_launch_may_go_ahead(from_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from headscope.kernels import mixed

    monkeypatch.setattr(mixed, "_OURS_AHEAD", from_tokens)
    a = layer(queries=9_001, kv_heads=2, group=4, width=128)
    given = [Full()] * 4 + [Streaming(128, 1024)] * 4
    want = sparse_attention(a.q, a.k, a.v, given, impl="triton", dispatch="single")
    for with_lse in (True, False, True):
        out = sparse_attention(
            a.q, a.k, a.v, given, impl="triton", dispatch="hybrid", with_lse=with_lse
        )
        assert out.ran is not None
        assert out.ran.dispatch == "hybrid"
        torch.testing.assert_close(out.z, want.z, atol=4e-3, rtol=4e-3)
        if with_lse:
            torch.testing.assert_close(out.lse, want.lse, atol=1e-4, rtol=1e-4)
