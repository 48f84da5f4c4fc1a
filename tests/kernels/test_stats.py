"""Statistics on the kernels, interpreted, against the reference in double precision."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.errors import HeadscopeError
from headscope.kernels import statistics, stats
from headscope.kernels.choice import using
from headscope.patterns import Streaming
from headscope.patterns.dilated import Dilated
from headscope.patterns.full import Full
from headscope.sweep import Sweep

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled here: see test_stats_gpu.py"
)
# Logits of half inputs are exact to 2^-20 or so; sums over some hundred keys keep that.
NEAR = {"atol": 2e-5, "rtol": 2e-5, "check_dtype": False}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that a kernel was to write holds NaN until it does."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def layer(
    heads: int = 2, kv: int = 1, n_queries: int = 40, n_keys: int = 40, first: int = 0,
    first_key: int = 0, batch: int = 1, dtype: torch.dtype = torch.float16, seed: int = 0,
    d: int = 64, **rest: Any,
) -> Attention:  # fmt: skip
    """A layer with pronounced attention; queries and keys begin at the given positions."""
    g = torch.Generator().manual_seed(seed)
    q = (2 * torch.randn(batch, n_queries, heads, d, generator=g)).to(dtype).transpose(1, 2)
    k = torch.randn(batch, kv, n_keys, d, generator=g).to(dtype)
    return Attention(
        layer=0, q=q, k=k, v=k, scale=d**-0.5,
        query_positions=(torch.arange(n_queries) + first).expand(batch, -1),
        key_positions=(torch.arange(n_keys) + first_key).expand(batch, -1),
        slots=Slots(first, first_key, False), **rest,
    )  # fmt: skip


def exact(a: Attention) -> Attention:
    """The same in double precision, which the kernels do not take."""
    sinks = None if a.sink_logits is None else a.sink_logits.double()
    return dataclasses.replace(a, q=a.q.double(), k=a.k.double(), sink_logits=sinks)


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    kv, heads = draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3), (2, 4)]))
    n_queries, n_keys = draw(st.integers(1, 75)), draw(st.integers(1, 75))
    first_key = draw(st.sampled_from([0, 0, 7]))
    last = draw(st.sampled_from([n_keys, n_keys, n_keys - 20, n_keys + 9]))
    rest: dict[str, Any] = {}
    if draw(st.booleans()):
        rest["window"] = draw(st.integers(1, 50))
    if draw(st.booleans()):
        rest["softcap"] = draw(st.sampled_from([1.0, 5.0]))
    if draw(st.booleans()):
        rest["sink_logits"] = torch.linspace(-3, 6, heads)
    return rest | {
        "heads": heads, "kv": kv, "n_queries": n_queries, "n_keys": n_keys,
        "first": max(0, first_key + last - n_queries), "first_key": first_key,
        "batch": draw(st.sampled_from([1, 1, 2])), "seed": draw(st.integers(0, 99)),
        "dtype": draw(st.sampled_from([torch.float16, torch.float16, torch.float32])),
        "d": draw(st.sampled_from([64, 96])),
    }  # fmt: skip


SHAPES = st.builds(
    stats.Shape,
    rows=st.sampled_from([16, 32, 32]),
    keys=st.sampled_from([16, 32, 32]),
    spread=st.sampled_from([1, 8]),
    sets=st.sampled_from([1, 2]),
    tma=st.booleans(),
)


def sets_of(a: Attention, n: int, seed: int) -> Tensor:
    """Sets of keys: scattered ones, spans, one that holds nothing, one for each head."""
    g = torch.Generator().manual_seed(seed)
    key = torch.arange(a.n_keys)
    found = [torch.rand(a.n_keys, generator=g) < 0.3, key < 20, key < 0, key >= 10]
    found += [torch.rand(a.n_keys, generator=g) < 0.1 * i for i in range(n)]
    sets = torch.stack(found[:n]) if n else torch.zeros(0, a.n_keys, dtype=torch.bool)
    sets = sets[:, None, None]
    if n and seed % 2:
        sets = sets & (torch.rand(n, len(a.q), a.n_heads, a.n_keys, generator=g) < 0.8)
    return sets


@settings(deadline=None, max_examples=8)
@given(layers(), SHAPES, st.integers(0, 8), st.sampled_from([None, 0, 5, 200]), st.integers(0, 9))
def test_passes_equal_the_reference(
    made: dict[str, Any], shape: stats.Shape, n_sets: int, clip: int | None, seed: int
) -> None:
    a = layer(**made)
    assert a.slots is not None
    source = statistics._source(a)
    sets = sets_of(a, n_sets, seed)
    full = sets.expand(n_sets, len(a.q), a.n_heads, a.n_keys)
    want = exact(a).row_stats({str(i): x for i, x in enumerate(full)}, clip)
    found = stats.row_answers(source, True, True, clip, sets, shape)
    assert_close(found.lse, want.lse, **NEAR)
    assert_close(found.entropy, want.entropy, **NEAR)
    assert_close(found.distance, want.distance, **NEAR)
    assert_close(found.clipped, want.clipped_distance, **NEAR)
    assert found.top is not None
    differs = found.top != want.top_key
    if differs.any():  # of logits that are nearly equal
        p = exact(a).rows(None)
        of_both = (p.gather(3, x.clamp(min=0)[..., None]) for x in (found.top, want.top_key))
        assert_close(*of_both, atol=1e-6, rtol=1e-5)
    assert (found.masses is None) == (n_sets == 0)
    for i in range(n_sets):
        assert found.masses is not None
        assert_close(found.masses[i], want.mass[str(i)], **NEAR)

    p = exact(a).rows(None)
    lse = want.lse.float()
    for how in ("max", "sum"):
        columns = stats.column_answers(source, lse, True, how, shape)
        assert_close(columns.sums, p.sum(2), **NEAR)
        squares = torch.nn.functional.pad(
            p, (0, -a.n_keys % shape.keys, 0, -a.n_queries % shape.rows)
        )
        squares = squares.unflatten(3, (-1, shape.keys)).unflatten(2, (-1, shape.rows))
        squares = squares.amax((3, 5)) if how == "max" else squares.sum((3, 5))
        assert_close(columns.squares, squares, **NEAR)
    for i in range(min(n_sets, 2)):
        assert_close(stats.mass_on_set(source, lse, sets[i], shape), want.mass[str(i)], **NEAR)
    for sink, window in ((3, 9), (40, 25)):
        inside = stats.mass_on_stream(source, lse, a.slots.first_key, sink, window, shape)
        assert_close(inside, exact(a).mass(Streaming(sink, window)), **NEAR)


def same(found: Attention, want: Attention) -> None:
    """Every answer of two attentions, types and shapes included."""
    n = found.n_keys
    regions = {
        "slice": slice(2, 20), "list": [0, 5], "stream": Streaming(4, 9), "full": Full(),
        "dilated": Dilated(1, 5, 3), "growing": Streaming(1, 2, 0.25),
    } | {f"set {i}": slice(i, i + 2) for i in range(14)}  # fmt: skip
    some = torch.arange(found.n_queries).flip(0)[: found.n_queries // 2 + 1]
    for queries in (None, some, [0]):
        a, b = (x.row_stats(regions, 6, queries) for x in (found, want))
        assert a.top_key.dtype == b.top_key.dtype == torch.int64
        assert torch.equal(a.top_key, b.top_key)
        assert list(a.mass) == list(b.mass)
        for name in ("lse", "entropy", "distance", "clipped_distance"):
            assert_close(getattr(a, name), getattr(b, name).float(), **NEAR | {"check_dtype": True})
        for name in regions:
            assert_close(a.mass[name], b.mass[name].float(), **NEAR | {"check_dtype": True})
            if not name.startswith("set"):
                inside = found.mass(regions[name], queries)
                assert_close(inside, b.mass[name].float(), **NEAR | {"check_dtype": True})
    a, b = found.sweep(6), want.sweep(6)
    for field in dataclasses.fields(Sweep):
        assert_close(getattr(a, field.name), getattr(b, field.name), **NEAR)
    for denominator in ("visible", "queries"):
        assert_close(found.column_means(denominator), want.column_means(denominator), **NEAR)
    sizes: list[tuple[int, Any]] = [
        (64, "max"),
        (128, "sum"),
        (128, "mean"),
        (128, "max"),
        (9, "max"),
    ]
    for size in sizes:
        assert_close(found.block_map(*size), want.block_map(*size), **NEAR)
    assert_close(found.lse(), want.lse(), **NEAR)
    last = [found.n_queries - 1]
    assert_close(found.at(last, [n - 1], "zero"), want.at(last, [n - 1], "zero"), **NEAR)
    assert_close(found.rows(last), want.rows(last), **NEAR)
    pairs = (torch.tensor([last]), torch.tensor([[0, n - 1, -1]]))
    assert_close(found.mass_on_sets(*pairs), want.mass_on_sets(*pairs), **NEAR)


@pytest.mark.parametrize(
    ("kind", "rest"),
    {
        "plain": {"n_queries": 140, "n_keys": 140},
        "chunk": {
            "n_queries": 20, "n_keys": 140, "first": 125, "first_key": 5, "batch": 2, "kv": 2,
        },
        "window": {"n_queries": 70, "n_keys": 140, "first": 70, "window": 33},
        "sinks": {
            "n_queries": 90, "n_keys": 90, "softcap": 4.0, "sink_logits": torch.tensor([0, 3.0]),
        },
    }.items(),
)  # fmt: skip
def test_answers_equal_the_reference(kind: str, rest: dict[str, Any]) -> None:
    a = layer(**rest)
    with using("triton"):
        same(a, exact_on_reference(a))


def exact_on_reference(a: Attention) -> Attention:
    """An attention whose answers come from the reference, wherever it is asked."""

    class Exact(Attention):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name not in ("row_stats", "mass", "sweep", "column_means", "block_map", "lse", "at",
                            "rows", "mass_on_sets"):  # fmt: skip
                return found

            def asked(*args: Any) -> Any:
                with using("reference"):
                    return found(*args)

            return asked

    fields = {f.name: getattr(exact(a), f.name) for f in dataclasses.fields(Attention)}
    return Exact(**fields)


def test_of_equal_logits_the_earliest_key_is_the_top() -> None:
    a = layer(n_queries=80, n_keys=80)
    for q in (torch.zeros_like(a.q), a.q):
        k = a.k[:, :, torch.arange(80) % 7]
        b = dataclasses.replace(a, q=q, k=k)
        found = stats.row_answers(statistics._source(b), top=True).top
        with using("reference"):
            assert torch.equal(found, exact(b).row_stats().top_key)


def test_small_distances_keep_their_digits_far_from_the_start() -> None:
    n = 12_000
    a = layer(1, 1, 3, n, first=n - 3)
    for i in range(3):  # each row looks at the key before its own
        a.k[0, 0, n - 4 + i] = 4 * a.q[0, 0, i]
    found = stats.row_answers(statistics._source(a), stats=True, clip=8)
    with using("reference"):
        want = exact(a).row_stats(clip=8)
    assert_close(found.distance, want.distance, atol=1e-5, rtol=1e-6, check_dtype=False)
    assert_close(found.clipped, want.clipped_distance, atol=1e-5, rtol=1e-6, check_dtype=False)
    assert_close(found.distance, torch.ones(1, 1, 3), atol=1e-3, rtol=0)


def test_large_logits() -> None:
    a = layer(n_queries=50, n_keys=50)
    a = dataclasses.replace(a, q=a.q * 30, sink_logits=torch.tensor([-2000.0, 900.0]))
    with using("triton"):
        found = a.row_stats({"first": [0]})
    with using("reference"):
        want = exact(a).row_stats({"first": [0]})
    assert_close(found.lse, want.lse, atol=1e-3, rtol=1e-6, check_dtype=False)
    assert_close(found.entropy, want.entropy, atol=1e-4, rtol=1e-4, check_dtype=False)
    assert_close(found.mass["first"], want.mass["first"], atol=1e-4, rtol=1e-4, check_dtype=False)


def test_expanded_and_transposed_inputs() -> None:
    a = layer(2, 1, 50, 50)
    k = a.k[:, :, :1].expand(-1, -1, 50, -1)
    v = a.v.clone()
    turned = a.q.transpose(2, 3).contiguous().transpose(2, 3)
    for b in (dataclasses.replace(a, k=k, v=v), dataclasses.replace(a, q=turned)):
        with using("triton"):
            found = b.row_stats(), b.column_means()
        with using("reference"):
            want = exact(b).row_stats(), exact(b).column_means()
        assert torch.equal(found[0].top_key, want[0].top_key)
        assert_close(found[0].entropy, want[0].entropy, **NEAR)
        assert_close(found[1], want[1], **NEAR)


def refused(a: Attention, why: str) -> None:
    with using("triton"), pytest.raises(HeadscopeError, match=why):
        a.row_stats()
    assert not statistics.take(a)  # and "auto" takes the reference


def test_what_the_kernels_do_not_take_is_left_to_the_reference() -> None:
    a = layer()
    refused(a.with_bias([0], 1.0), "edited")
    refused(a.with_pattern(Streaming(1, 2)), "edited")
    refused(dataclasses.replace(a, chunk=5), "window")
    refused(dataclasses.replace(a, mask=torch.ones(1, 1, 40, 40, dtype=torch.bool)), "window")
    refused(dataclasses.replace(a, slots=Slots(0, 0, True)), "padded")
    refused(dataclasses.replace(a, slots=None), "padded")
    refused(dataclasses.replace(a, scale=-0.1), "scaled")
    refused(layer(d=80), "wide")
    refused(layer(dtype=torch.float64), "float64")
    refused(layer(dtype=torch.float32, d=256), "single precision")
    with torch.enable_grad():
        refused(dataclasses.replace(a, q=a.q.clone().requires_grad_()), "differentiated")


def test_without_a_gpu_or_the_interpreter_the_reference_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    a = layer()
    assert not statistics.take(a)
    assert not caplog.records
    with using("triton"), pytest.raises(HeadscopeError, match="Triton"):
        a.lse()


def test_a_few_rows_and_nothing_at_all_are_left_to_the_reference() -> None:
    a = layer()
    with using("triton"):
        assert statistics.take(a)
        assert statistics.take(a, range(20))
        assert not statistics.take(a, [3])
        none = layer(n_queries=0)
        assert not statistics.take(none)
        assert none.lse().shape == (1, 2, 0)


def test_what_was_found_is_kept_until_q_changes() -> None:
    a = layer()
    with using("triton"):
        found = a.row_stats().lse
        assert a.lse() is found
        a.block_map(64)
        assert statistics.column_sums(a) is statistics.column_sums(a)
        a.q.mul_(2)
        again, means = a.lse(), a.column_means()
    with using("reference"):
        assert_close(again, exact(a).lse(), **NEAR)
        assert_close(means, exact(a).column_means(), **NEAR)
    known = dataclasses.replace(a, known_lse=again + 1)
    with using("triton"):
        assert_close(known.row_stats().lse, again + 1)
        # Columns are those of the lse that is known, as in the reference.
        assert_close(known.column_means(), a.column_means() / torch.e, **NEAR)
