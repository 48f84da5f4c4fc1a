"""Every answer of `Attention` against dense float64 attention, on whatever hypothesis thinks of."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from headscope import blocks
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.engines import dense as engine
from headscope.errors import HeadscopeError
from headscope.merge import merge, with_sink
from headscope.patterns import Streaming


@st.composite
def layers(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Random layers: grouped heads, caches, padding on either side, windows, caps and sinks."""
    batch = draw(st.integers(1, 2))
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    n_q, past = draw(st.integers(1, 9)), draw(st.integers(0, 8))
    d = draw(st.sampled_from([4, 8]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    n_k = n_q + past
    padding = draw(st.sampled_from(["none", "left", "right"]))
    slot = torch.arange(n_k).expand(batch, -1)
    if padding == "none":
        key = slot
    else:
        pads = torch.tensor([draw(st.integers(0, n_k - 1)) for _ in range(batch)])[:, None]
        key = slot - pads if padding == "left" else slot
        real = slot >= pads if padding == "left" else slot < n_k - pads
        key = torch.where(real, key, -1)
    query = key[:, past:]
    held = draw(st.booleans())
    if held:  # every kv_head holds other keys
        drop = torch.rand(batch, kv_heads, n_k, generator=generator) < 0.3
        key = torch.where(drop, -1, key[:, None])
    # Built in the tests: beartype draws random numbers, which a strategy may not.
    return {
        "layer": draw(st.integers(0, 3)),
        "q": normal(batch, kv_heads * group, n_q, d),
        "k": normal(batch, kv_heads, n_k, d),
        "v": normal(batch, kv_heads, n_k, d),
        "scale": draw(st.sampled_from([1.0, d**-0.5])),
        "query_positions": query,
        "key_positions": key,
        "softcap": draw(st.sampled_from([None, 1.5])),
        "window": draw(st.sampled_from([None, 1, 4])),
        "chunk": draw(st.sampled_from([None, None, 3])),
        "sink_logits": normal(kv_heads * group) if draw(st.booleans()) else None,
        "slots": None if held else Slots(past, 0, padding != "none"),
    }


@pytest.fixture(autouse=True, params=[1, 40, 2**22], ids="block{}".format, scope="module")
def block_size(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything again with blocks of one row, of a few rows, and all in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks._BLOCK, "cpu", request.param)
        yield


@settings(deadline=None, max_examples=150)
@given(layers())
def test_answers_equal_the_dense_oracle(layer: dict[str, Any]) -> None:
    a = Attention(**layer)
    want = oracle.dense(a)
    some = list(range(a.n_queries))[::-2]
    assert_close(a.visible().expand_as(want.logits), oracle.visible(a))
    assert_close(a.dense(), want.pattern)
    assert_close(a.rows(some), want.pattern[:, :, some])
    assert_close(a.lse(), want.lse)
    assert_close(a.z(), want.z)
    for tile in a.tiles(some):
        index = tile.queries
        assert_close(tile.probabilities, want.pattern[:, :, index][..., tile.keys])
        assert_close(tile.logits, want.logits[:, :, index][..., tile.keys])
    h = a.n_heads - 1
    assert_close(a.head(h).dense(), want.pattern[:, h : h + 1])
    assert_close(a.batch_row(0).dense(), want.pattern[:1])


@settings(deadline=None, max_examples=100)
@given(layers(), st.integers(0, 2), st.integers(0, 2**31))
def test_sets_hold_the_mass_of_their_pairs(layer: dict[str, Any], behind: int, seed: int) -> None:
    a = Attention(**layer)
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-1, a.n_queries, (5, 3), generator=generator)
    keys = torch.stack([torch.randperm(a.n_keys + 1, generator=generator) - 1 for _ in range(5)])
    found, p = a.mass_on_sets(queries, keys, behind), oracle.dense(a).pattern
    key = a.keys_by_head().expand(len(p), a.n_heads, -1)
    for s, i in itertools.product(range(5), range(3)):
        want = torch.zeros_like(found[:, :, s, i])
        for j in (j for j in keys[s].tolist() if j >= 0 and queries[s, i] >= 0):
            row = int(queries[s, i])
            far = a.query_positions[:, row, None] - key[:, :, j] >= behind
            want = want + p[:, :, row, j] * far
        assert_close(found[:, :, s, i], want)
    kinds = a.mass_on_sets(queries, torch.stack((keys, keys.flip(0)), 1), (behind, 1))
    assert_close(kinds[:, :, 0], found)
    assert_close(kinds[:, :, 1], a.mass_on_sets(queries, keys.flip(0), 1))


@settings(deadline=None, max_examples=100)
@given(layers(), st.integers(1, 5))
def test_statistics_equal_the_dense_oracle(layer: dict[str, Any], size: int) -> None:
    a = Attention(**layer)
    want = oracle.dense(a)
    p = want.pattern
    pattern = Streaming(sink=1, window=2)
    key = a.key_positions if a.key_positions.ndim == 3 else a.key_positions[:, None]
    key = key.repeat_interleave(a.n_heads // key.shape[1], 1)[:, :, None]
    query = a.query_positions[:, None, :, None]
    distance = (query - key).clamp(min=0)
    inside = (key < 1) | (query - key < 2)
    stats = a.row_stats({"band": pattern, "first": [0]}, clip=2)
    share = 1 - p.sum(-1)
    entropy = -torch.xlogy(p, p).sum(-1) - (
        torch.xlogy(share, share) if a.sink_logits is not None else 0
    )
    empty = want.lse == -torch.inf
    assert_close(stats.entropy, entropy.masked_fill(empty, 0))
    assert_close(stats.distance, (p * distance).sum(-1))
    assert_close(stats.clipped_distance, (p * distance.clamp(max=2)).sum(-1))
    assert_close(stats.mass["band"], (p * inside).sum(-1))
    assert_close(stats.mass["first"], p[..., 0])
    assert_close(a.mass(pattern), (p * inside).sum(-1))
    assert_close(a.mass(slice(0, 2), [0]), p[:, :, :1, :2].sum(-1))
    sees = p.sum(-1) > 0
    assert_close(stats.top_key[sees], p.argmax(-1)[sees])
    seen = oracle.visible(a).sum(2)
    assert_close(a.column_means(), p.sum(2) / seen.clamp(min=1))
    real = (a.query_positions >= 0).sum(1)[:, None, None]
    assert_close(a.column_means("queries"), p.sum(2) / real.clamp(min=1))
    n_q, n_k = -(-a.n_queries // size) * size, -(-a.n_keys // size) * size
    wide = torch.nn.functional.pad(p, (0, n_k - a.n_keys, 0, n_q - a.n_queries))
    squares = wide.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    assert_close(a.block_map(size), squares.amax((3, 5)))
    assert_close(a.block_map(size, "sum"), squares.sum((3, 5)))
    assert_close(a.block_map(size, "mean"), squares.mean((3, 5)))


@settings(deadline=None, max_examples=100)
@given(layers(), st.data())
def test_parts_merge_to_the_whole(layer: dict[str, Any], data: st.DataObject) -> None:
    a = Attention(**layer)
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=a.n_keys, max_size=a.n_keys)))
    merged = with_sink(*merge(a.partial(mask), a.partial(~mask)), a.sink_logits)
    assert_close(merged[0], a.z())
    assert_close(merged[1], a.lse())


@settings(deadline=None, max_examples=100)
@given(layers(), st.data())
def test_single_entries_equal_rows(layer: dict[str, Any], data: st.DataObject) -> None:
    a = Attention(**layer)
    pattern, seen = oracle.dense(a).pattern, oracle.visible(a).all(1).all(0)
    pairs = seen.nonzero()
    if len(pairs):
        query, key = pairs.T
        assert_close(a.at(query, key), pattern[:, :, query, key])
        both = query.expand(a.q.shape[0], -1), key.expand(a.q.shape[0], -1)
        assert_close(a.at(*both), pattern[:, :, query, key])
    hidden = (~oracle.visible(a).any(1).any(0)).nonzero()
    if len(hidden):
        query, key = data.draw(st.sampled_from(hidden.tolist()))
        with pytest.raises(HeadscopeError, match="cannot see key"):
            a.at([query], [key])


@settings(deadline=None, max_examples=100)
@given(layers(), st.data())
def test_bias_is_multiplication_of_the_pattern(layer: dict[str, Any], data: st.DataObject) -> None:
    a = Attention(**layer)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    shape = (a.q.shape[0], a.n_heads, a.n_keys)
    keys = torch.rand(*shape, generator=generator) < 0.5
    factor = torch.rand(*shape[:2], a.n_queries, generator=generator, dtype=torch.float64) * 3
    heads = data.draw(st.sampled_from([None, [0]]))
    changed = a.with_bias(keys, factor.log(), heads)
    applies = torch.zeros(a.n_heads, dtype=torch.bool)
    applies[0 if heads else slice(None)] = True
    extra = torch.where(keys[:, :, None] & applies[:, None, None], factor.log()[..., None], 0)
    want = oracle.dense(a, extra)
    assert_close(changed.dense(), want.pattern)
    assert_close(changed.z(), want.z)
    assert_close(changed.head(0).dense(), want.pattern[:, :1])
    assert_close(changed.batch_row(0).z(), want.z[:1])
    # The same, after the softmax: multiply and normalise again, the sink's share included.
    base = oracle.dense(a)
    scaled = base.pattern * torch.exp(extra)
    total = scaled.sum(-1, keepdim=True)
    if a.sink_logits is not None:
        total = total + 1 - base.pattern.sum(-1, keepdim=True)
    assert_close(changed.dense(), (scaled / total).nan_to_num(0))


@settings(deadline=None, max_examples=100)
@given(layers(), st.integers(0, 3), st.integers(1, 4))
def test_restriction_hides_all_but_a_pattern(layer: dict[str, Any], sink: int, window: int) -> None:
    a = Attention(**layer)
    pattern = Streaming(sink, window)
    changed = a.with_pattern(pattern, heads=[0])
    key = a.key_positions if a.key_positions.ndim == 3 else a.key_positions[:, None]
    key = key.repeat_interleave(a.n_heads // key.shape[1], 1)[:, :, None]
    inside = pattern.mask(a.query_positions[:, None, :, None], key).clone()
    inside[:, 1:] = True
    want = oracle.dense(a, torch.where(inside, 0, -torch.inf))
    assert_close(changed.z(), want.z)
    # Two edits compose, whichever came first.
    bias = torch.full((a.n_heads, 1), 0.7)
    one = a.with_bias([0], bias).with_pattern(pattern, [0])
    other = a.with_pattern(pattern, [0]).with_bias([0], bias)
    assert_close(one.dense(), other.dense())


@settings(deadline=None, max_examples=150)
@given(layers(torch.float32), st.booleans())
def test_engine_equals_the_definition(layer: dict[str, Any], edited: bool) -> None:
    a = Attention(**layer)
    if edited:
        amount = torch.linspace(-2, 1, a.n_queries)
        a = a.with_bias([0], amount).with_pattern(Streaming(1, 3), [0])
    attended = engine(a)
    assert_close(attended.z, a.z(), atol=1e-5, rtol=1e-5)
    assert_close(attended.lse, a.lse(), atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(layers())
@torch.enable_grad()
def test_answers_are_differentiable(layer: dict[str, Any]) -> None:
    a = Attention(**layer)
    inputs = [x.clone().requires_grad_() for x in (a.q, a.k, a.v)]
    live = dataclasses.replace(a, q=inputs[0], k=inputs[1], v=inputs[2])
    weights = torch.Generator().manual_seed(0)

    def noise(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=weights, dtype=x.dtype)

    answers = (
        lambda b: b.z(),
        lambda b: b.lse().masked_fill(b.lse() == -torch.inf, 0),
        lambda b: b.rows([0]),
        lambda b: b.row_stats().entropy,
        lambda b: b.column_means(),
        lambda b: b.mass(slice(0, 1)),
        lambda b: b.block_map(2),
        lambda b: engine(b).z,
    )
    for answer in answers:
        direct = answer(live)
        grad = torch.autograd.grad((direct * noise(direct)).sum(), inputs, allow_unused=True)
        assert all(g is None or torch.isfinite(g).all() for g in grad)

    def z(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return dataclasses.replace(a, q=q, k=k, v=v).z()

    def lse(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        found = dataclasses.replace(a, q=q, k=k).lse()
        return found.masked_fill(found == -torch.inf, 0)

    assert torch.autograd.gradcheck(z, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(lse, inputs[:2], fast_mode=True)


@pytest.mark.parametrize("index", [[-1], [99], torch.tensor([0.5]), torch.tensor([[0], [1]])])
def test_impossible_indices_are_refused(index: Any) -> None:
    a = plain(4)
    with pytest.raises(HeadscopeError):
        a.rows(index)
    with pytest.raises(HeadscopeError):
        a.partial(index)


def test_wrong_shapes_are_refused() -> None:
    a = plain(4)
    for change in (a.with_q, a.with_k, a.with_v, engine(a).with_z):
        with pytest.raises(HeadscopeError, match="cannot take its place"):
            change(torch.zeros(1, 2, 3, 8))
    with pytest.raises(HeadscopeError, match="broadcasts to"):
        a.with_bias([0], torch.zeros(3))
    with pytest.raises(HeadscopeError, match="mask of keys"):
        a.with_bias(torch.zeros(5, dtype=torch.bool), 1.0)
    with pytest.raises(HeadscopeError, match="pair up"):
        a.at([1, 2], [0])
    with pytest.raises(HeadscopeError, match="block"):
        a.block_map(0)
    big = torch.zeros(1, 1, 40000, 4)
    positions = torch.arange(40000)[None]
    wide = Attention(0, big, big, big, 1.0, positions, positions)
    with pytest.raises(HeadscopeError, match="use rows"):
        wide.dense()


def plain(n: int) -> Attention:
    x = torch.randn(1, 2, n, 8, generator=torch.Generator().manual_seed(n))
    positions = torch.arange(n)[None]
    return Attention(
        layer=0, q=x, k=x, v=x, scale=0.3, query_positions=positions, key_positions=positions,
        slots=Slots(0, 0, False),
    )  # fmt: skip
