"""Statistics on the kernels, compiled, at lengths that the interpreter would not finish."""

import dataclasses
from typing import Any

import pytest
import torch
from test_stats import layer
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.kernels import stats
from headscope.kernels.choice import using
from headscope.patterns import Streaming
from headscope.patterns.full import Full

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Sums of a few thousand rounded numbers; a mass is a sum of parts that are exact to 2^-17.
NEAR = {"atol": 1e-5, "rtol": 1e-4, "check_dtype": False}


def on_gpu(a: Attention) -> Attention:
    moved = {f.name: getattr(a, f.name) for f in dataclasses.fields(a)}
    moved = {name: x.cuda() for name, x in moved.items() if isinstance(x, torch.Tensor)}
    return dataclasses.replace(a, **moved)


def exact(a: Attention) -> Attention:
    sinks = None if a.sink_logits is None else a.sink_logits.double()
    return dataclasses.replace(a, q=a.q.double(), k=a.k.double(), v=a.v.double(), sink_logits=sinks)


CASES: dict[str, dict[str, Any]] = {
    "plain": {"heads": 8, "kv": 2, "n_queries": 2051, "n_keys": 2051, "d": 128},
    "chunk": {
        "heads": 4, "kv": 1, "n_queries": 300, "n_keys": 2300, "first": 2009, "first_key": 9,
        "batch": 2, "d": 128,
    },
    "window": {"heads": 4, "kv": 2, "n_queries": 1500, "n_keys": 1500, "d": 64, "window": 700},
    "sinks": {
        "heads": 4, "kv": 4, "n_queries": 900, "n_keys": 900, "d": 96, "softcap": 20.0,
        "sink_logits": torch.tensor([-2.0, 0, 3, 9]),
    },
    "wide": {"heads": 2, "kv": 1, "n_queries": 1025, "n_keys": 1025, "d": 256},
    "one row": {"heads": 4, "kv": 2, "n_queries": 1, "n_keys": 4097, "first": 4096, "d": 128},
}  # fmt: skip


SINGLE = {"heads": 4, "kv": 2, "n_queries": 700, "n_keys": 700, "d": 128}
MEASURED = [
    *((case, dtype) for case in CASES.values() for dtype in (torch.bfloat16, torch.float16)),
    (SINGLE, torch.float32),
]
NAMED = [*(f"{case}-{width}" for case in CASES for width in ("bfloat16", "float16")), "single"]


@pytest.mark.parametrize(("case", "dtype"), MEASURED, ids=NAMED)
def test_answers_equal_the_reference(case: dict[str, Any], dtype: torch.dtype) -> None:
    a = on_gpu(layer(**case, dtype=dtype))
    regions = {
        "first": [0], "span": slice(100, 300), "stream": Streaming(4, 64), "full": Full(),
        "odd": torch.arange(a.n_keys, device="cuda") % 3 == 1,
        "by head": torch.rand(len(a.q), a.n_heads, a.n_keys, device="cuda") < 0.2,
    }  # fmt: skip
    with using("reference"):
        of_rows, swept = exact(a).row_stats(regions, 128), exact(a).sweep(128)
        maps = {how: exact(a).block_map(128, how) for how in ("max", "sum", "mean")}
    with using("triton"):
        found, sweep = a.row_stats(regions, 128), a.sweep(128)
        assert (found.top_key != of_rows.top_key).double().mean() < 1e-3  # of nearly equal logits
        for name in ("lse", "entropy", "distance", "clipped_distance"):
            assert_close(getattr(found, name), getattr(of_rows, name), **NEAR)
        for name, region in regions.items():
            assert_close(found.mass[name], of_rows.mass[name], **NEAR)
            assert_close(a.mass(region), of_rows.mass[name], **NEAR)
        for field in dataclasses.fields(sweep):
            assert_close(getattr(sweep, field.name), getattr(swept, field.name), **NEAR)
        for how, want in maps.items():
            assert_close(a.block_map(128, how), want, **NEAR)
        assert_close(a.column_means(), swept.column_means, **NEAR)


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("spread", [1, 8])
def test_every_shape_gives_the_same(spread: int, sets: int) -> None:
    a = on_gpu(layer(4, 2, 1000, 1000, dtype=torch.bfloat16, d=128))
    source = stats.Source(a.q, a.k, a.scale, 0)
    keys = torch.stack([torch.arange(1000, device="cuda") % (2 + i) == 1 for i in range(3)])
    keys[1] = torch.arange(1000, device="cuda") < 200
    with using("reference"):
        want = exact(a).row_stats({str(i): x for i, x in enumerate(keys)})
        received = exact(a).sweep().column_sums
    for rows, n, warps in ((64, 64, 4), (64, 128, 4), (128, 64, 8)):
        for tma in (False, torch.cuda.get_device_capability() >= (9, 0)):
            shape = stats.Shape(rows, n, warps, 2, None, spread, sets, tma)
            found = stats.row_answers(source, True, True, None, keys[:, None, None], shape)
            assert found.masses is not None
            assert_close(found.lse, want.lse, **NEAR)
            assert_close(found.entropy, want.entropy, **NEAR)
            assert_close(found.distance, want.distance, **NEAR)
            assert_close(found.masses, torch.stack([*want.mass.values()]), **NEAR)
            columns = stats.column_answers(source, found.lse, shape=shape)
            assert_close(columns.sums, received, **NEAR)


def test_memory_does_not_grow_with_the_square_of_the_length() -> None:
    n = 32_768
    a = on_gpu(layer(8, 2, n, n, dtype=torch.bfloat16, d=128))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with using("triton"):
        a.row_stats({str(i): slice(i * 100, i * 200) for i in range(8)})
        a.block_map(128)
        a.column_means()
    # Of the 34 GB of this pattern in single precision.
    assert torch.cuda.max_memory_allocated() - before < 200 * 2**20
