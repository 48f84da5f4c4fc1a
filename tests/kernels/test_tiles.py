"""Tilings against the pattern itself, pair by pair; they need no Triton."""

import pytest
import rules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headscope.catalog import patterns
from headscope.kernels.tiles import TILE, Reach, Span, Tiling, by_pairs, tiling
from headscope.patterns import Full, Streaming
from headscope.patterns.base import Pattern

CPU = torch.device("cpu")


@st.composite
def spans(draw: st.DrawFn) -> Span:
    lowest = draw(st.sampled_from([0, 0, 0, 5, 64, 100]))
    first = lowest + draw(st.sampled_from([0, 0, 1, 63, 64, 130]))
    queries = draw(st.integers(1, 150))
    return Span(first, queries, lowest, first + queries - lowest)


def reaches() -> st.SearchStrategy[Reach]:
    some = st.sampled_from([None, None, 1, 50, 64])
    return st.builds(Reach, window=some, chunk=some)


def pairs(tiles: Tiling, span: Span) -> Tensor:
    """[row, key] by position, from position 0 on; no tile may stand in a row twice."""
    size = span.tiles.stop * TILE
    seen = torch.zeros(size, size, dtype=torch.bool)
    often = torch.zeros(size // TILE, size // TILE)
    whole = partly = 0
    for row, at in enumerate(span.tiles):
        rows = slice(at * TILE, (at + 1) * TILE)
        a, n_a, b, n_b = tiles.runs[row].tolist()
        listed = tiles.whole[whole : whole + int(tiles.n_whole[row])].tolist()
        whole += len(listed)
        for tile in (*range(a, a + n_a), *range(b, b + n_b), *listed):
            often[at, tile] += 1
            seen[rows, tile * TILE : (tile + 1) * TILE] = True
        for _ in range(int(tiles.n_partly[row])):
            tile, words = int(tiles.partly[partly]), tiles.masks[tiles.bits[partly]]
            often[at, tile] += 1
            bits = (words[:, None] >> torch.arange(TILE)) & 1
            seen[rows, tile * TILE : (tile + 1) * TILE] = bits.bool()
            partly += 1
    assert often.max() <= 1
    assert (whole, partly) == (len(tiles.whole), len(tiles.partly))
    return seen


def check(pattern: Pattern, span: Span, reach: Reach) -> None:
    seen = pairs(tiling(pattern, span, reach, CPU), span)
    query, key = torch.arange(len(seen))[:, None], torch.arange(len(seen))[None]
    want = pattern.mask(query, key) & (key <= query)
    if reach.window is not None:
        want &= query - key < reach.window
    if reach.chunk is not None:
        want &= query // reach.chunk == key // reach.chunk
    want &= (key >= span.lowest) & (key < span.lowest + span.keys)
    rows = slice(span.first, span.first + span.queries)
    assert torch.equal(seen[rows], want[rows])


@settings(deadline=None, max_examples=60)
@given(span=spans(), reach=reaches(), data=st.data())
def test_streaming_by_arithmetic(span: Span, reach: Reach, data: st.DataObject) -> None:
    sizes = st.sampled_from([1, 2, 63, 64, 65, 128, 1000])
    sink, window = data.draw(st.just(0) | sizes), data.draw(sizes)
    check(Streaming(sink, window), span, reach)
    check(Full(), span, reach)


@pytest.mark.parametrize("name", list(patterns()))
@settings(deadline=None, max_examples=20)
@given(span=spans(), reach=reaches(), data=st.data())
def test_every_pattern(name: str, span: Span, reach: Reach, data: st.DataObject) -> None:
    check(data.draw(rules.drawn(name)), span, reach)


@pytest.mark.parametrize("name", list(patterns()))
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_pattern_repeats_itself_as_it_says(name: str, data: st.DataObject) -> None:
    pattern = data.draw(rules.drawn(name))
    assert isinstance(pattern, Pattern)
    if (said := pattern.repeats()) is None:
        return
    step, after = said
    query, key = torch.arange(400)[:, None], torch.arange(after, 400)[None]
    here = pattern.mask(query, key) & (key <= query)
    later = pattern.mask(query + step, key + step) & (key <= query)
    assert torch.equal(here, later)


def test_a_long_pattern_is_cut_from_a_short_piece_of_it() -> None:
    """The pairs that are looked at do not grow with the square of the text."""
    looked = 0

    def seen(query: Tensor, key: Tensor) -> Tensor:
        nonlocal looked
        pattern = patterns()["radial"]()
        mask = pattern.mask(query, key) & (key <= query)
        looked += mask.numel()
        return mask

    span = Span(0, 4096, 0, 4096)
    short = by_pairs(seen, span, CPU, patterns()["radial"]().repeats())
    few, looked = looked, 0
    whole = by_pairs(seen, span, CPU)
    assert few * 20 < looked
    for name in ("whole", "partly", "n_whole", "n_partly"):
        assert torch.equal(getattr(short, name), getattr(whole, name))
    assert torch.equal(short.masks[short.bits], whole.masks[whole.bits])
