"""The prefill kernel against a dense float64 softmax, in Triton's interpreter or on a GPU."""

import dataclasses
from typing import Any

import pytest
import rules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.catalog import patterns, selectors
from headscope.errors import HeadscopeError
from headscope.kernels import attending
from headscope.kernels.api import sparse_attention
from headscope.kernels.choice import using
from headscope.patterns import Full, Selection, Streaming
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel leaves unwritten shows up as NaN."""
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty(*a, **k).fill_(float("nan")))


def layer(
    seed: int = 0,
    batch: int = 1,
    kv_heads: int = 1,
    group: int = 2,
    queries: int = 70,
    past: int = 0,
    width: int = 64,
    padding: tuple[int, ...] = (),
    left: bool = True,
    lowest: int = 0,
    **more: Any,
) -> Attention:
    """An attention in float16; `padding` says how many tokens of each sequence are none, `lowest`
    where the first key stands."""
    generator = torch.Generator().manual_seed(seed)
    keys = queries + past

    def normal(heads: int, tokens: int) -> Tensor:
        x = torch.randn(batch, heads, tokens, width, generator=generator)
        return x.half().to(DEVICE)

    key = torch.arange(keys).expand(batch, -1)
    if padding:
        pads = torch.tensor(padding)[:, None]
        real = key >= pads if left else key < keys - pads
        key = torch.where(real, key - pads if left else key, -1)
    key = torch.where(key < 0, -1, key + lowest).to(DEVICE)
    return Attention(
        layer=0,
        q=normal(kv_heads * group, queries) * 2,
        k=normal(kv_heads, keys),
        v=normal(kv_heads, keys),
        scale=width**-0.5,
        query_positions=key[:, past:],
        key_positions=key,
        slots=Slots(past + lowest, lowest, bool(padding)),
        **more,
    )


def wanted(a: Attention, seen: list[Tensor]) -> tuple[Tensor, Tensor]:
    """z and lse in float64, of what each head sees beside causality and the layer's reach."""
    q, k, v = (x.double().cpu() for x in (a.q, a.k, a.v))
    query, key = (x.cpu() for x in (a.query_positions, a.key_positions))
    query, key = query[:, None, :, None], key[:, None, None, :]
    visible = (key >= 0) & (key <= query)
    if a.window is not None:
        visible = visible & (query - key < a.window)
    if a.chunk is not None:
        visible = visible & (query // a.chunk == key // a.chunk)
    s = torch.einsum("bhid,bhjd->bhij", q, k.repeat_interleave(a.group, 1)) * a.scale
    if a.softcap is not None:
        s = torch.tanh(s / a.softcap) * a.softcap
    s = s.masked_fill(~(visible & torch.stack([x.cpu() for x in seen], 1)), -torch.inf)
    lse = s.logsumexp(-1)
    p = torch.exp(s - lse.masked_fill(lse == -torch.inf, 0)[..., None])
    return p @ v.repeat_interleave(a.group, 1), lse


def check(a: Attention, of_heads: list[Rule | Selection]) -> None:
    with using("triton"):
        assert attending.takes(a, None)
        found = attending.attend(a, of_heads)
    if found is None:  # nothing but padding
        assert not bool((a.query_positions >= 0).any())
        return
    (z, lse), _, resolved = found
    seen = []
    for head, sees in enumerate(resolved.sees):
        if isinstance(sees, Pattern):
            rows = [[sees.mask(a.query_positions[b, :, None], a.key_positions[b, None])]
                    for b in range(len(a.q))]  # fmt: skip
            seen.append(torch.stack([row[0] for row in rows]))
            continue
        number, place = sees
        selection = resolved.selections[number]
        i = torch.arange(a.n_queries, device=a.q.device)[:, None]
        j = torch.arange(a.n_keys, device=a.q.device)[None]
        every = torch.broadcast_to(
            _of(selection, place).mask(a, i, j), (len(a.q), 1, a.n_queries, a.n_keys)
        )
        seen.append(every[:, 0])
        assert head in resolved.heads_of[number]
    z_wanted, lse_wanted = wanted(a, seen)
    if a.n_keys > 1:
        assert bool(z.isfinite().all())
    assert_close(z.double().cpu(), z_wanted, atol=2e-3, rtol=2e-3)
    assert_close(lse.double().cpu(), lse_wanted, atol=1e-5, rtol=1e-5)


def _of(selection: Selection, place: int) -> Selection:
    index = torch.tensor([place])
    wide = [x for x in (selection.blocks, selection.columns) if x is not None and x.shape[1] > 1]
    return selection.heads(index) if wide else selection


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    batch = draw(st.integers(1, 2))
    queries, past = draw(st.integers(1, 140)), draw(st.sampled_from([0, 0, 1, 63, 64, 100]))
    pads = st.lists(st.integers(0, queries + past), min_size=batch, max_size=batch)
    return {
        "seed": draw(st.integers(0, 2**31)),
        "batch": batch,
        "kv_heads": draw(st.integers(1, 2)),
        "group": draw(st.integers(1, 3)),
        "queries": queries,
        "past": past,
        "padding": tuple(draw(pads)) if draw(st.integers(0, 2)) == 0 else (),
        "left": draw(st.booleans()),
        "lowest": draw(st.sampled_from([0, 0, 0, 1, 64, 100])),
        "softcap": draw(st.sampled_from([None, None, 1.5])),
        "window": draw(st.sampled_from([None, None, None, 1, 70])),
        "chunk": draw(st.sampled_from([None, None, None, 50])),
    }


def streams() -> st.SearchStrategy[Streaming]:
    sizes = st.sampled_from([1, 2, 5, 63, 64, 65, 100, 128, 1000])
    return st.builds(Streaming, sink=st.just(0) | sizes, window=sizes)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_full_and_streaming_heads(data: st.DataObject) -> None:
    a = layer(**data.draw(layers()))
    check(a, [data.draw(st.just(Full()) | streams()) for _ in range(a.n_heads)])


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_patterns_that_differ_by_head(data: st.DataObject) -> None:
    a = layer(**data.draw(layers()))
    drawn = st.sampled_from(sorted(patterns())).flatmap(rules.drawn) | streams()
    check(a, [data.draw(drawn) for _ in range(a.n_heads)])


@pytest.mark.parametrize("name", [*patterns(), *selectors()])
def test_every_rule_beside_a_full_head(name: str) -> None:
    rule = {**patterns(), **selectors()}[name]()
    check(layer(queries=200, group=2, kv_heads=2), [rule, Full(), Full(), rule])


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_selections_of_any_blocks_and_columns(data: st.DataObject) -> None:
    a = layer(**data.draw(layers()))
    check(a, [data.draw(selections(a))] * a.n_heads)


@st.composite
def selections(draw: st.DrawFn, a: Attention) -> Selection:
    """Made for all heads of an attention: blocks, columns, both or none, empty and all."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    block = draw(st.sampled_from([64, 64, 128, 192, 16, 100]))
    share = draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    last = int(a.query_positions.max())
    real = a.query_positions[a.query_positions >= 0]
    first = int(real.min()) // block if len(real) else 0
    size = (max(last, 0) // block - first + 1, max(last, 0) // block + 1)

    def some(*shape: int) -> Tensor:
        return (torch.rand(len(a.q), a.n_heads, *shape, generator=generator) < share).to(DEVICE)

    kinds = draw(st.sampled_from(["blocks", "columns", "both", "both"]))
    # Of each head, or the same for all heads or all sequences.
    part = draw(st.sampled_from([(slice(None),), (slice(1),), (slice(None), slice(1))]))
    return Selection(
        ranges=Streaming(2, 3) if draw(st.integers(0, 5)) == 0 else None,
        blocks=None if kinds == "columns" else some(*size)[part],
        block=block,
        first_block=first,
        columns=None if kinds == "blocks" else some(a.n_keys)[part],
    )


@pytest.mark.parametrize("width", [64, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 4])
def test_widths_of_heads(width: int, group: int) -> None:
    a = layer(width=width, group=group, queries=130, past=7)
    check(a, [Streaming(3, 40), Full(), Streaming(70, 9), Full()][:group])


def test_tensors_of_any_strides() -> None:
    a = layer(queries=90, group=2, kv_heads=2, batch=2)
    given = [Full(), Streaming(4, 9), Streaming(4, 9), Full()]
    there = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (a.q, a.k, a.v)]
    turned = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (a.q, a.k, a.v)]
    odd = [torch.nn.functional.pad(x, (1, 2))[..., 1:-2] for x in (a.q, a.k, a.v)]
    want = sparse_attention(a.q, a.k, a.v, given, impl="triton")
    for q, k, v in (there, turned, odd):
        got = sparse_attention(q, k, v, given, impl="triton")
        assert_close(got.z, want.z, atol=0, rtol=0)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_texts_in_one_row_do_not_see_each_other(impl: str) -> None:
    lengths = [70, 1, 64, 30]
    a = layer(queries=sum(lengths), group=2)
    a.v[:, :, -30:] = float("nan")  # nor what stands in the others
    given = [Full(), Streaming(4, 9)]
    packed = sparse_attention(a.q, a.k, a.v, given, lengths=lengths, impl=impl)
    start = 0
    for n in lengths[:-1]:
        one = slice(start, start + n)
        q, k, v = (x[:, :, one] for x in (a.q, a.k, a.v))
        alone = sparse_attention(q, k, v, given, impl="reference")
        assert_close(packed.z[:, :, one], alone.z, atol=2e-3, rtol=2e-3)
        assert_close(packed.lse[:, :, one].float(), alone.lse.float(), atol=1e-3, rtol=1e-3)
        start += n


def test_what_triton_cannot_take_is_refused_or_runs_on_the_reference() -> None:
    a = layer(queries=20)
    given = [Streaming(1, 3)] * 2
    wide = [x.float() for x in (a.q, a.k, a.v)]
    with pytest.raises(HeadscopeError, match="bfloat16 and float16"):
        sparse_attention(*wide, given, impl="triton")
    assert sparse_attention(*wide, given).ran is None
    narrow = [x[..., :40] for x in (a.q, a.k, a.v)]
    with pytest.raises(HeadscopeError, match="64, 96, 128, 256 wide, and these are 40"):
        sparse_attention(*narrow, given, impl="triton")
    with pytest.raises(HeadscopeError, match="2 query heads"):
        sparse_attention(a.q, a.k, a.v, given[:1])
    with pytest.raises(HeadscopeError, match="last ones of the keys"):
        sparse_attention(a.q, a.k[:, :, :5], a.v[:, :, :5], given)
    other = Selection(columns=torch.ones(1, 2, 30, dtype=torch.bool, device=DEVICE))
    with pytest.raises(HeadscopeError, match="made for 30 keys, and there are 20"):
        sparse_attention(a.q, a.k, a.v, [other] * 2, impl="triton")
    for more, said in (
        ({"window": 0}, "window has"),
        ({"softcap": 0.0}, "soft-cap is above 0"),
        ({"dispatch": "both"}, "auto, hybrid or single"),
        ({"lengths": []}, "a token at least"),
    ):
        with pytest.raises(HeadscopeError, match=said):
            sparse_attention(a.q, a.k, a.v, given, **more)  # type: ignore[arg-type]
    with pytest.raises(HeadscopeError, match="a KV head at least"):
        sparse_attention(a.q, a.k[:, :0], a.v[:, :0], given)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_a_selection_for_other_tokens_is_refused(impl: str) -> None:
    a = layer(queries=256)

    def given(*shape: int, **more: int) -> Selection:
        blocks = torch.ones(*shape, device=DEVICE, dtype=torch.bool)
        return Selection(blocks=blocks, block=more.get("block", 64),
                         first_block=more.get("first_block", 0))  # fmt: skip

    fits = given(1, 1, 4, 4)
    out = sparse_attention(a.q, a.k, a.v, [fits] * 2, impl=impl)
    want = sparse_attention(a.q, a.k, a.v, [Full()] * 2, impl="reference")
    assert_close(out.z, want.z, atol=2e-3, rtol=2e-3)
    for other, said in (
        (given(1, 2, 2, 4), "queries of 64 tokens a block stand in 0 to 3"),
        (given(1, 2, 4, 2), "2 of keys"),
        (given(1, 2, 0, 0), "0 of keys"),
        (given(1, 2, 4, 4, first_block=2), "blocks 2 to 5 of queries"),
        (given(3, 2, 4, 4), "sequences and heads"),
        (given(1, 2, 4, 4, block=0), "a token at least"),
    ):
        with pytest.raises(HeadscopeError, match=said):
            sparse_attention(a.q, a.k, a.v, [other] * 2, impl=impl)


def test_a_selection_of_nothing() -> None:
    a = layer(queries=70)
    out = sparse_attention(a.q, a.k, a.v, [Selection()] * 2, impl="triton")
    assert not out.z.any()
    assert bool((out.lse == -torch.inf).all())


def test_what_stands_behind_the_last_query_is_not_read() -> None:
    """As in a cache that has room for more."""
    a = layer(queries=100, past=0)
    room = torch.full((1, 1, 50, 64), torch.nan, dtype=torch.float16, device=DEVICE)
    wide = dataclasses.replace(
        a,
        k=torch.cat((a.k, room), 2),
        v=torch.cat((a.v, room), 2),
        key_positions=torch.arange(150, device=DEVICE)[None],
    )
    rule = selectors()["block_top_k"]()
    for of_heads in ([Full(), Streaming(4, 9)], [rule, rule]):
        with using("triton"):
            (z, _), _, _ = attending.attend(wide, of_heads) or pytest.fail("not taken")
            (want, _), _, _ = attending.attend(a, of_heads) or pytest.fail("not taken")
        assert bool(z.isfinite().all())
        if of_heads[0] == Full():  # what is chosen may depend on keys that come later
            assert torch.equal(z, want)


def test_queries_behind_all_keys_are_left_to_the_reference() -> None:
    a = layer(queries=100)
    a = dataclasses.replace(
        a, query_positions=a.query_positions + 100, slots=Slots(100, 0, padded=False)
    )
    with using("triton"):
        assert attending.attend(a, [Full(), Streaming(1, 2)]) is None


def test_kept_indices_serve_gradients() -> None:
    a = layer(queries=9, kv_heads=2)
    with torch.inference_mode():
        a.some_heads([0, 2])
    with torch.enable_grad():
        q = a.q.float().requires_grad_()
        dataclasses.replace(a, q=q).some_heads([0, 2]).q.sum().backward()
    assert q.grad is not None


def test_choosing_under_autocast() -> None:
    a = layer(queries=300)
    rule = selectors()["block_top_k"]()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        check(a, [rule, rule])


def test_rows_that_see_nothing_are_zero() -> None:
    a = layer(queries=80, batch=2, padding=(80, 3))
    with using("triton"):
        found = attending.attend(a, [Streaming(0, 5), Full()])
    assert found is not None
    (z, lse), _, _ = found
    blind = a.query_positions < 0
    assert not z.transpose(1, 2)[blind].any()
    assert bool((lse.transpose(1, 2)[blind] == -torch.inf).all())
    assert bool(lse.transpose(1, 2)[~blind].isfinite().all())


def test_a_batch_with_holes_is_left_to_the_reference() -> None:
    a = layer(queries=20)
    holes = a.key_positions.clone()
    holes[:, 5] = -1
    a = dataclasses.replace(a, key_positions=holes, slots=None)
    with using("triton"):
        assert attending.attend(a, [Full(), Streaming(1, 2)]) is None
