"""Tile limits against numbers that others computed, and against masks written out."""

import pytest
import torch
from bench_cases import positions_only
from torch import Tensor

from headscope.bench.limit import dense_tiles, limit_of, tile_limit
from headscope.bench.squares import squares
from headscope.catalog import patterns
from headscope.kernels.attending import Resolved
from headscope.patterns import Full, Selection, Streaming
from headscope.patterns.base import Pattern
from headscope.patterns.sharded import Sharded

CPU = torch.device("cpu")
N = 300


@pytest.mark.parametrize(
    ("n", "limits"),
    [(8192, (1.56, 2.15, 2.66)), (32768, (1.86, 3.25, 5.21)), (131072, (1.96, 3.78, 7.04))],
)
def test_the_limits_of_full_and_streaming_heads_are_those_that_were_published(
    n: int, limits: tuple[float, ...]
) -> None:
    for streaming, want in zip((4, 6, 7), limits, strict=True):
        rules = (Full(),) * (4 * (8 - streaming)) + (Streaming(128, 1024),) * (4 * streaming)
        found = limit_of(Resolved(rules, (), ()), n, 128, CPU)
        assert round(found, 2) == want


def pairs(pattern: Pattern, n: int) -> Tensor:
    query, key = torch.arange(n)[:, None], torch.arange(n)[None]
    return pattern.mask(query, key) & (key <= query)


def pooled(seen: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Squares with some pair, and those whose pairs are all seen, of pairs that are written out."""
    count = -(-len(seen) // side)
    padded = torch.zeros(count * side, count * side, dtype=torch.bool)
    padded[: len(seen), : len(seen)] = seen
    cut = padded.view(count, side, count, side)
    return cut.any(3).any(1), cut.all(3).all(1)


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("n", [1, 63, N, 512])
def test_squares_are_those_of_the_pairs(side: int, n: int) -> None:
    rules = [kind() for kind in patterns().values()]
    rules += [Streaming(70, 90), Streaming(500, 1), Sharded(4, 8, 64, 3, 1)]
    for rule in rules:
        found, want = squares(rule, n, side, CPU), pooled(pairs(rule, n), side)
        assert torch.equal(found[0], want[0]), rule
        assert torch.equal(found[1], want[1]), rule


@pytest.mark.parametrize(("block", "first"), [(32, 0), (64, 0), (128, 0), (96, 0), (64, 1)])
@pytest.mark.parametrize("ranges", [None, Streaming(3, 9)])
def test_selections_count_blocks_and_what_columns_add(
    block: int, first: int, ranges: Pattern | None
) -> None:
    generator = torch.Generator().manual_seed(block + first)
    count = -(-N // block)
    blocks = torch.rand(1, 2, count - first, count, generator=generator) < 0.3
    columns = torch.rand(1, 2, N, generator=generator) < 0.1
    selection = Selection(ranges, blocks, block, first, columns)
    found = Resolved(((0, 0), (0, 1), Full()), (selection,), ((0, 1, 2),))
    total = float(dense_tiles(N, 128))
    for head in (0, 1):
        seen = torch.zeros(N, N, dtype=torch.bool)
        for i, j in blocks[0, head].nonzero().tolist():
            rows, keys = (slice(x * block, (x + 1) * block) for x in (i + first, j))
            seen[rows, keys] = True
        if ranges is not None:
            seen |= pairs(ranges, N)
        touched = pooled(seen, 128)[0].tril()
        for _, j in (~touched).tril().nonzero().tolist():
            total += columns[0, head, 128 * j : 128 * (j + 1)].sum().item() / 128
        total += touched.sum().item()
    assert limit_of(found, N, 128, CPU) == pytest.approx(3 * dense_tiles(N, 128) / total)


def test_a_dense_mix_has_nothing_to_gain() -> None:
    assert tile_limit(positions_only(N), [Full()] * 4) == 1.0
    assert tile_limit(positions_only(1), [Streaming(1, 1)] * 4) == 1.0
