"""Selectors: what they may depend on, what planted data makes them see, and selections as such."""

import dataclasses
from typing import Any

import pytest
import rules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patterns.layers import layers
from torch import Tensor
from torch.nn.functional import normalize, pad
from torch.utils._python_dispatch import TorchDispatchMode

from headscope import blocks
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.catalog import selectors
from headscope.patterns import Full, Selection, Streaming
from headscope.patterns.rules import Rule
from headscope.patterns.selectors import (
    BlockTopK,
    FlexPrefill,
    HierarchicalTopK,
    ProxyAttn,
    Selector,
    SelfSimilarity,
    VerticalSlash,
)

NAMES = list(selectors())


def seen(selection: Selection, a: Attention) -> Tensor:
    """[batch, head, query, key], causality included."""
    query, key = torch.arange(a.n_queries)[:, None], torch.arange(a.n_keys)[None]
    mask = selection.mask(a, query, key) & a.visible()
    return mask.expand(len(a.q), a.n_heads, -1, -1)


# ---- what a selection may depend on ----------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_group_and_a_sequence_choose_for_themselves(name: str, data: st.DataObject) -> None:
    drawn, rule = data.draw(layers(padded=data.draw(st.booleans()))), data.draw(rules.drawn(name))
    a = drawn.attention()
    whole = seen(rule.resolve(a), a)
    for kv in range(a.n_kv_heads):
        heads = list(range(kv * a.group, (kv + 1) * a.group))
        part = a.some_heads(heads)
        assert torch.equal(seen(rule.resolve(part), part), whole[:, heads])
        cut = rule.resolve(a).heads(torch.tensor(heads))
        assert torch.equal(seen(cut, part), whole[:, heads])
    for b in range(len(a.q)):
        alone = a.batch_row(b)
        assert torch.equal(seen(rule.resolve(alone), alone), whole[b : b + 1])
        assert torch.equal(seen(rule.resolve(a).batch_row(b), alone), whole[b : b + 1])
    if not isinstance(rule, ProxyAttn):  # whose proxy is the mean of a whole group
        for head in range(a.n_heads):
            one = a.head(head)
            assert torch.equal(seen(rule.resolve(one), one), whole[:, head : head + 1])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_padding_and_keys_that_are_not_held_say_nothing(name: str, data: st.DataObject) -> None:
    drawn, rule = data.draw(layers(padded=True)), data.draw(rules.drawn(name))
    layer = dict(drawn.layer)
    layer["q"] = layer["q"].masked_fill((layer["query_positions"] < 0)[:, None, :, None], 1e6)
    key = layer["key_positions"]
    key = key[:, None] if key.ndim == 2 else key
    layer["k"] = layer["k"].masked_fill((key < 0)[..., None], -1e6)
    a, other = drawn.attention(), dataclasses.replace(drawn, layer=layer).attention()
    assert torch.equal(seen(rule.resolve(a), a), seen(rule.resolve(other), a))


def test_no_column_is_spent_on_padding() -> None:
    """Where the last rows see a window alone, what is left of a budget goes to the first keys."""
    a = dataclasses.replace(text(8, heads=1, kv_heads=1, d=4), window=1, slots=None)
    positions = torch.tensor([[-1, -1, 0, 1, 2, 3, 4, 5]])
    a = dataclasses.replace(a, query_positions=positions, key_positions=positions)
    found = VerticalSlash(3, 1, 1, 0, 1, 1).resolve(a).columns
    assert found is not None
    assert found[0, 0].nonzero()[:, 0].tolist() == [2, 3, 7]


def text(n: int, heads: int = 4, kv_heads: int = 2, d: int = 16, seed: int = 0) -> Attention:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, heads, n, d, generator=generator)
    k, v = torch.randn(2, 1, kv_heads, n, d, generator=generator)
    positions = torch.arange(n)[None]
    return Attention(0, q, k, v, d**-0.5, positions, positions, slots=Slots(0, 0, False))


def chunk(a: Attention, first: int, stop: int) -> Attention:
    """Some queries with all keys before the last of them, as after a cache."""
    return dataclasses.replace(
        a,
        q=a.q[:, :, first:stop],
        k=a.k[:, :, :stop],
        v=a.v[:, :, :stop],
        query_positions=a.query_positions[:, first:stop],
        key_positions=a.key_positions[:, :stop],
        slots=Slots(first, 0, False),
    )


@pytest.mark.parametrize(
    "rule",
    [BlockTopK(8, 4, 4), HierarchicalTopK(8, 4, 4), SelfSimilarity(0.5, -1.0, 4, 8)],
    ids=str,
)
def test_chunks_of_whole_blocks_choose_what_the_prompt_does(rule: Selector) -> None:
    a = text(101)
    whole = seen(rule.resolve(a), a)
    for first, stop in ((0, 32), (32, 40), (40, 101)):
        part = chunk(a, first, stop)
        assert torch.equal(seen(rule.resolve(part), part), whole[:, :, first:stop, :stop])


@pytest.mark.parametrize("name", NAMES)
def test_a_single_query_chooses_where_the_method_decodes(name: str) -> None:
    a, rule = text(64, d=4), {"block": 8, "sink": 4}
    small = {"vertical": 9, "slash": 4, "window": 2} if name == "vertical_slash" else {}
    small |= {"blocks": 3} if selectors()[name].decodes else {}
    step = chunk(a, 63, 64)
    found = selectors()[name](**rule, **small).resolve(step)
    share = float(seen(found, step).float().mean())
    if selectors()[name].decodes:
        assert share == 3 / 8, "three of eight blocks"
    else:
        assert found.ranges == Full()
    assert seen(selectors()[name]().resolve(chunk(a, 0, 1)), chunk(a, 0, 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_choice_is_differentiated(name: str, grad: None) -> None:
    a = text(40)
    a = dataclasses.replace(a, q=a.q.requires_grad_())
    found = selectors()[name]().resolve(a)
    assert not any(x is not None and x.requires_grad for x in (found.blocks, found.columns))


class _Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that anything makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, Tensor):
                self.size = max(self.size, x.untyped_storage().nbytes() // x.itemsize)
        return made


@pytest.mark.parametrize("name", NAMES)
def test_memory_grows_with_the_text_and_not_with_its_square(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocks._BLOCK, "cpu", 2**18)
    n = 3000
    a = text(n, heads=2, kv_heads=1, d=4)
    with _Largest() as largest:
        selectors()[name]().resolve(a)
    assert 0 < largest.size < n * n / 10


# ---- planted data ----------------------------------------------------------------------------

SMALL: list[Rule] = [
    VerticalSlash(24, 6, 16, 4, 2, 16),
    BlockTopK(16, 4, 4),
    FlexPrefill(0.5, 0.0, 4, 16),
    FlexPrefill(0.8, 0.9, 4, 16),
    SelfSimilarity(0.5, -1.0, 4, 16),
    ProxyAttn(0.5, 4, 16),
    HierarchicalTopK(16, 4, 4),
]
N = 256


def test_all_selectors_are_planted_for() -> None:
    assert {rule.name for rule in SMALL} == set(NAMES)


@pytest.mark.parametrize("rule", SMALL, ids=str)
def test_padding_behind_a_chunk_changes_nothing(rule: Rule) -> None:
    a = text(N)
    short, padded = chunk(a, 128, 230), chunk(a, 128, N)
    hidden = padded.key_positions.masked_fill(padded.key_positions >= 230, -1)
    padded = dataclasses.replace(
        padded, query_positions=hidden[:, 128:], key_positions=hidden, slots=Slots(128, 0, True)
    )
    want = seen(rule.resolve(short), short)
    assert torch.equal(seen(rule.resolve(padded), padded)[:, :, :102, :230], want)


@pytest.mark.parametrize("rule", SMALL, ids=str)
def test_a_longer_sequence_beside_it_changes_nothing(rule: Rule) -> None:
    long, short = text(N), text(150, seed=1)
    both = {
        x: torch.cat((getattr(long, x), pad(getattr(short, x), (0, 0, N - 150, 0), value=9.0)))
        for x in ("q", "k", "v")
    }
    positions = torch.stack((torch.arange(N), torch.arange(N) - (N - 150))).clamp(min=-1)
    a = dataclasses.replace(
        long, **both, query_positions=positions, key_positions=positions, slots=Slots(0, 0, True)
    )
    found = seen(rule.resolve(a), a)
    assert torch.equal(found[:1], seen(rule.resolve(long), long))
    assert torch.equal(found[1:, :, -150:, -150:], seen(rule.resolve(short), short))


def check_planted(rule: Rule, a: Attention, query: list[int], key: list[int]) -> None:
    mask = seen(rule.resolve(a), a)
    assert bool(mask[:, :, query, key].all())
    share = mask.float().sum() / (mask.shape[1] * N * (N + 1) / 2)
    assert float(share) < 0.65, "not because it sees everything"


@pytest.mark.parametrize("rule", SMALL, ids=str)
@pytest.mark.parametrize("needle", [70, 100, 171])
def test_a_needle_is_seen(rule: Rule, needle: int) -> None:
    """A stretch of keys that all later queries ask for, strongest in its middle."""
    a = text(N, d=32)
    asked = torch.zeros(32)
    asked[0] = 6
    near = torch.exp(-(((torch.arange(N) - needle) / 20.0) ** 2))
    a = a.with_q(a.q * 0.3 + asked).with_k(a.k * 0.3 + near[:, None] * asked)
    rows = list(range(240, 256))
    check_planted(rule, a, rows, [needle] * len(rows))


@pytest.mark.parametrize(
    "rule", [rule for rule in SMALL if not isinstance(rule, HierarchicalTopK)], ids=str
)
@pytest.mark.parametrize("column", [77, 95, 128])
def test_a_column_is_seen(rule: Rule, column: int) -> None:
    """One key that everything looks at; a tree may miss it, since it stands for no neighbor."""
    a = text(N, d=32)
    asked = torch.zeros(32)
    asked[0] = 8
    k = a.k * 0.3
    k[:, :, column] = asked * 3
    rows = list(range(column, N))
    check_planted(rule, a.with_q(a.q * 0.3 + asked).with_k(k), rows, [column] * len(rows))


@pytest.mark.parametrize("rule", [SMALL[0], SMALL[1], SMALL[2], SMALL[5]], ids=str)
@pytest.mark.parametrize("distance", [48, 96])
def test_a_diagonal_is_seen(rule: Rule, distance: int) -> None:
    """Every query asks for the key at one distance, whatever it is."""
    a = text(N, heads=2, kv_heads=1, d=128)
    codes = normalize(a.k, dim=-1) * 12
    q = codes.roll(distance, 2).expand(-1, 2, -1, -1) + 0.1 * a.q
    rows = list(range(distance, N))
    check_planted(rule, a.with_q(q).with_k(codes), rows, [row - distance for row in rows])


def test_what_needs_alike_blocks_sees_the_others_whole() -> None:
    """Keys of one block point everywhere, so that their mean stands for none of them."""
    a = text(N, d=32)
    k = torch.zeros_like(a.k)
    k[..., 0] = 1
    k[:, :, 80:96] = a.k[:, :, 80:96]
    q = torch.zeros_like(a.q)
    q[..., 0] = 1
    rule = SelfSimilarity(0.1, 0.5, 4, 16)
    mask = seen(rule.resolve(a.with_q(q).with_k(k)), a)
    assert bool(mask[:, :, 96:, 80:96].all())
    assert not bool(mask[:, :, 160:, 48:64].any())
    q[:, :, 200:208] = a.q[:, :, 200:208]
    mixed = seen(rule.resolve(a.with_q(q).with_k(k)), a)
    assert torch.equal(mixed[:, :, 192:208], a.visible()[:, :, 192:208].expand(1, 4, -1, -1))


def test_means_are_trusted_only_where_they_foretell() -> None:
    """Two heads, one of whose attention is even within blocks; the other's is a single column."""
    a = text(N, heads=2, kv_heads=2, d=32)
    asked = torch.zeros(32)
    asked[0] = 5
    k = a.k * 0.05
    k[:, 0] += asked * (torch.arange(N) // 16 == 5)[:, None]
    k[:, 1, 80] += asked * 3
    a = a.with_q(a.q * 0.05 + asked).with_k(k)
    found = FlexPrefill(0.9, 0.1, 4, 16).resolve(a)
    assert found.columns is not None
    assert not bool(found.columns[0, 0].any()), "by means alone"
    assert found.columns[0, 1].nonzero()[:, 0].tolist() == [80]


# ---- budgets and selections ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["block_top_k", "hierarchical_top_k"])
@settings(deadline=None, max_examples=25)
@given(data=st.data(), n=st.integers(1, 60))
def test_a_budget_of_blocks_is_spent_exactly(name: str, data: st.DataObject, n: int) -> None:
    rule = data.draw(rules.drawn(name))
    a = text(n, d=4)
    shares = seen(rule.select(a), a).double().sum((0, 2, 3)) / (n * (n + 1) / 2)
    assert shares.tolist() == pytest.approx([rule.density(n)] * 4)
    assert rule.density(0) == 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"block_top_k", "hierarchical_top_k"}))
def test_a_budget_that_the_text_decides_has_no_density(name: str) -> None:
    assert selectors()[name]().density(100) is None
    assert selectors()[name]().held() is None
    assert selectors()[name]().at(100) == selectors()[name]()


@st.composite
def selections(draw: st.DrawFn) -> tuple[Selection, int]:
    block, n = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    size, first = -(-n // block), draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    some = torch.rand(1, 2, max(size - first, 0), size, generator=generator)
    blocks_ = (some < draw(st.floats(0, 1))) if draw(st.booleans()) else None
    columns = torch.rand(1, 2, n, generator=generator) < 0.2 if draw(st.booleans()) else None
    ranges = Streaming(draw(st.integers(0, 3)), 2) if draw(st.booleans()) else None
    return Selection(ranges, blocks_, block, first, columns), n


@settings(deadline=None, max_examples=100)
@given(selections(), st.data())
def test_ranges_of_selections_hold_what_is_seen(
    drawn: tuple[Selection, int], data: st.DataObject
) -> None:
    selection, n = drawn
    a = text(n, heads=2, kv_heads=1, d=2)
    first = data.draw(st.integers(0, n - 1))
    last = data.draw(st.integers(first, n - 1))
    mask = seen(selection, a)[:, :, first : last + 1].flatten(0, 2).any(0)
    ranges = selection.key_ranges(first, last)
    edges = [edge for part in ranges for edge in part]
    assert edges == sorted(set(edges))
    inside = {key for low, high in ranges for key in range(low, high)}
    assert set(mask.nonzero()[:, 0].tolist()) <= inside <= set(range(last + 1))
    if selection.columns is None and selection.ranges is None and selection.blocks is not None:
        keys = range(last + 1)
        rows = {
            query // selection.block - selection.first_block for query in range(first, last + 1)
        }
        chosen = [selection.blocks[0, :, row].any(0) for row in rows if row >= 0]
        assert inside == {key for key in keys if any(row[key // selection.block] for row in chosen)}


def test_nothing_chosen_is_nothing_seen() -> None:
    assert not seen(Selection(), text(5)).any()
    assert Selection().key_ranges(0, 4) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_selector_tells_what_it_is(name: str) -> None:
    kind = selectors()[name]
    assert "arXiv" in kind.paper
    doc = kind.__doc__ or ""
    assert "Source:" in doc
    assert kind.paper.split("arXiv ")[1] in doc
    for field in dataclasses.fields(kind):
        assert f"{field.name}:" in doc or f"{field.name}," in doc
