"""One layer of a `HeadCache` on random q, k and v, against a softmax in float64."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from head_caches import held_positions
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import module
from torch import Tensor
from torch.testing import assert_close
from transformers.cache_utils import Cache

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.catalog import patterns, selectors
from headscope.engines import Engine, dense
from headscope.geometry import Geometry
from headscope.head_layer import HeadLayer
from headscope.patterns import Full, Pattern, Streaming
from headscope.run import Run
from headscope.sparsity import SparseProfile
from headscope.sparsity.engine import SparseEngine
from headscope.sparsity.profile import ProfiledModel
from headscope.stack import Chain

D, DV = 4, 3
BY_POSITION = st.one_of(
    st.just(Full()),
    st.builds(Streaming, st.integers(0, 9), st.integers(1, 12)),
    st.sampled_from([Streaming(70, 1), Streaming(1, 70)]),
    *(module(name).RULES for name in sorted(patterns())),
)
BY_CONTENT = st.one_of(*(module(name).RULES for name in sorted(selectors())))


@dataclass
class Text:
    """Queries, keys and values of a padded batch at one layer, and who may see whom there."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor
    window: int | None
    chunk: int | None
    sinks: Tensor | None

    @property
    def positions(self) -> Tensor:
        """-1 for padding; a row counts from its first token, padding between tokens included."""
        start = self.mask.argmax(1, keepdim=True)
        return (torch.arange(self.mask.shape[1]) - start).masked_fill(self.mask == 0, -1)

    def want(self, rules: list[Pattern]) -> Tensor:
        at = self.positions
        query, key = at[:, None, :, None], at[:, None, None, :]
        seen = (key >= 0) & (key <= query)
        if self.window is not None:
            seen = seen & (query - key < self.window)
        if self.chunk is not None:
            seen = seen & (query // self.chunk == key // self.chunk)
        seen = seen & torch.cat([rule.mask(query, key) for rule in rules], dim=1)
        group = self.q.shape[1] // self.k.shape[1]
        q, k, v = (x.double() for x in (self.q, self.k, self.v))
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        logits = (q @ k.transpose(2, 3) * 0.5).masked_fill(~seen, -torch.inf)
        if self.sinks is not None:
            sink = self.sinks.double()[None, :, None, None].expand(*logits.shape[:3], 1)
            logits = torch.cat((logits, sink), 3)
        return logits.softmax(-1).nan_to_num(0)[..., : k.shape[2]] @ v

    def geometry(self, start: int, stop: int) -> Geometry:
        padding = None if bool(self.mask.all()) else self.mask.bool()
        return Geometry(
            len(self.q), stop - start, stop, start, 0, self.window, self.chunk, padding, None,
            torch.device("cpu"),
        )  # fmt: skip

    def attention(self, start: int, stop: int, first_key: int) -> Attention:
        """Of the queries from `start` to `stop` over the keys from `first_key` on."""
        geometry = self.geometry(start, stop)
        query, key = geometry.positions()
        return Attention(
            0, self.q[:, :, start:stop], self.k[:, :, first_key:stop], self.v[:, :, first_key:stop],
            0.5, query, key[:, first_key:], window=self.window, chunk=self.chunk,
            sink_logits=self.sinks, slots=Slots(start, first_key, geometry.padding is not None),
            run=Run(),
        )  # fmt: skip

    def read(self, layer: HeadLayer, start: int, stop: int, chain: Chain) -> Tensor:
        new = self.attention(start, stop, start)
        layer.update(new.k, new.v)
        return layer.attend(new, self.geometry(start, stop), chain).z


def pieces(sizes: list[int], n: int) -> list[tuple[int, int]]:
    """Starts and stops of pieces of a text of n tokens; the last takes what is left."""
    edges = [0]
    for size in (*sizes, n):
        edges.append(min(edges[-1] + size, n))
    return [(start, stop) for start, stop in pairwise(edges) if start < stop]


SIZES = st.lists(st.one_of(st.just(1), st.integers(1, 20)), min_size=1, max_size=12)


@st.composite
def texts(draw: st.DrawFn, padded: bool) -> Text:
    n, batch = draw(st.one_of(st.integers(1, 60), st.integers(30, 60))), 2
    n_kv, group = draw(st.sampled_from([(2, 3), (3, 2), (1, 3), (4, 1)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    mask = torch.ones(batch, n, dtype=torch.bool)
    if padded:
        pads = draw(st.lists(st.integers(0, n - 1), min_size=batch, max_size=batch))
        mask &= torch.arange(n) >= torch.tensor(pads)[:, None]
        if draw(st.booleans()):  # padding between tokens and behind them
            mask &= (torch.rand(batch, n, generator=generator) < 0.7) | (mask.cumsum(1) == 1)
    near = draw(st.sampled_from([None, None, "window", "chunk"]))
    size = draw(st.integers(1, 20))
    return Text(
        torch.randn(batch, n_kv * group, n, D, generator=generator),
        torch.randn(batch, n_kv, n, D, generator=generator),
        torch.randn(batch, n_kv, n, DV, generator=generator),
        mask.long(),
        size if near == "window" else None,
        size if near == "chunk" else None,
        torch.randn(n_kv * group, generator=generator) if draw(st.booleans()) else None,
    )


def looking(look: bool, engine: Engine) -> Chain:
    return Chain(observers=(lambda _: None,) if look else (), engine=engine)


@pytest.mark.parametrize("look", [False, True], ids=["apart", "looked_at"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@settings(max_examples=25, deadline=None)
@given(data=st.data(), sizes=SIZES)
def test_any_rules_in_any_pieces(
    look: bool, padded: bool, data: st.DataObject, sizes: list[int]
) -> None:
    text = data.draw(texts(padded))
    heads, n_kv, n = text.q.shape[1], text.k.shape[1], text.q.shape[2]
    rules = data.draw(st.lists(BY_POSITION, min_size=heads, max_size=heads))
    facts = ProfiledModel(name="made", layers=(0,), n_heads=heads, n_kv_heads=n_kv, d_head=D)
    profile = SparseProfile.of(facts, [rules])
    layer, chain = HeadLayer(profile.held(0), heads // n_kv), looking(look, SparseEngine(profile))
    parts = []
    for start, stop in pieces(sizes, n):
        parts.append(text.read(layer, start, stop, chain))
        for kv_head, need in enumerate(profile.held(0)):
            check_held(text, layer, kv_head, need, stop)
    found, real = torch.cat(parts, 2), text.mask.bool()[:, None].expand(-1, heads, -1)
    assert_close(found[real], text.want(rules)[real].float(), atol=1e-5, rtol=1e-5)
    if not padded:
        whole = sum(store.n_bytes for store in layer.stores)
        assert whole * 2 * D == profile.kv_bytes(n, 4, len(text.q)) * (D + DV)


def check_held(
    text: Text, layer: HeadLayer, kv_head: int, need: tuple[int, int] | None, stop: int
) -> None:
    """A ring holds what its rule says of every row, and each key where its position is."""
    if need is None:
        return
    rows = held_positions(Cache(layers=[layer]), 0, kv_head)
    for row, at, keys in zip(rows, text.positions[:, :stop].tolist(), text.k, strict=True):
        end = max(at) + 1
        real = [p for p in at if 0 <= p < need[0] or p >= max(end - need[1], 0)]
        assert sorted(row) == real
        for position, key in row.items():
            assert torch.equal(key, keys[kv_head, at.index(position)])


@pytest.mark.parametrize("look", [False, True], ids=["apart", "looked_at"])
@settings(max_examples=15, deadline=None)
@given(data=st.data(), text=st.booleans().flatmap(texts), sizes=SIZES)
def test_what_looks_at_the_text_sees_what_a_full_cache_shows(
    look: bool, data: st.DataObject, text: Text, sizes: list[int]
) -> None:
    """A selector chooses by what a pass sees: the same pieces with every key held say the same."""
    heads, n_kv, n = text.q.shape[1], text.k.shape[1], text.q.shape[2]
    either = st.one_of(BY_CONTENT, BY_CONTENT, st.just(Streaming(2, 7)))
    rules = data.draw(st.lists(either, min_size=heads, max_size=heads))
    facts = ProfiledModel(name="made", layers=(0,), n_heads=heads, n_kv_heads=n_kv, d_head=D)
    profile = SparseProfile.of(facts, [rules])
    layer, engine = HeadLayer(profile.held(0), heads // n_kv), SparseEngine(profile)
    for start, stop in pieces(sizes, n):
        found = text.read(layer, start, stop, looking(look, engine))
        want = engine(text.attention(start, stop, 0)).z
        real = text.mask[:, start:stop].bool()[:, None].expand(-1, heads, -1)
        assert_close(found[real], want[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("look", [False, True], ids=["apart", "looked_at"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("engine", [dense, lambda a: dense(a)], ids=["dense", "another"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_step_alone_sees_what_is_held(
    look: bool, padded: bool, engine: Engine, data: st.DataObject
) -> None:
    """Without a profile in force, steps see sinks and windows, whoever computes them and looks."""
    text = data.draw(texts(padded))
    heads, n_kv, n = text.q.shape[1], text.k.shape[1], text.q.shape[2]
    needs = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(1, 9)))
    held = data.draw(st.lists(needs, min_size=n_kv, max_size=n_kv))
    layer, chain = HeadLayer(held, heads // n_kv), looking(look, engine)
    found = torch.cat([text.read(layer, t, t + 1, chain) for t in range(n)], 2)
    rules = [Full() if need is None else Streaming(*need) for need in held]
    want = text.want([rule for rule in rules for _ in range(heads // n_kv)])
    real = text.mask.bool()[:, None].expand(-1, heads, -1)
    assert_close(found[real], want[real].float(), atol=1e-5, rtol=1e-5)
