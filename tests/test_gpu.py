"""On a GPU: the engine's kernels, the streamed answers and a scan give what the CPU gives."""

import dataclasses
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from conftest import opened
from tiny import CONFIGS, tiny_model, tiny_tokenizer
from torch.testing import assert_close

import headscope
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.engines import dense as engine
from headscope.patterns import Streaming
from headscope.prompts import Repeated

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def layer(dtype: torch.dtype, heads: int, kv_heads: int, d: int, past: int, **rest: Any):
    """One layer on the GPU, with odd lengths."""
    generator = torch.Generator().manual_seed(heads * d + past)
    n_q, n_k = 37, 37 + past

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to("cuda", dtype)

    positions = torch.arange(n_k, device="cuda").expand(1, -1)
    return Attention(
        layer=0, q=normal(1, heads, n_q, d), k=normal(1, kv_heads, n_k, d),
        v=normal(1, kv_heads, n_k, d), scale=d**-0.5, query_positions=positions[:, past:],
        key_positions=positions, slots=Slots(past, 0, False), **rest,
    )  # fmt: skip


def on_cpu(a: Attention) -> Attention:
    """The same in float64, for the oracle."""
    moved = {
        f.name: value.cpu().double() if value.is_floating_point() else value.cpu()
        for f in dataclasses.fields(a)
        if isinstance(value := getattr(a, f.name), torch.Tensor)
    }
    return dataclasses.replace(a, **moved, known_lse=None)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "d"), [(6, 2, 64), (4, 4, 32), (5, 1, 20)])
@pytest.mark.parametrize("past", [0, 33])
@pytest.mark.parametrize("rest", [{}, {"window": 20}, {"softcap": 5.0}], ids=str)
def test_the_engine_equals_the_oracle(
    dtype: torch.dtype, heads: int, kv_heads: int, d: int, past: int, rest: dict[str, Any]
) -> None:
    a = layer(dtype, heads, kv_heads, d, past, **rest)
    want, found = oracle.dense(on_cpu(a)), engine(a)
    error = TOLERANCE[dtype]
    assert_close(found.z.cpu().double(), want.z, atol=error, rtol=error)
    assert_close(found.lse.cpu().double(), want.lse, atol=error, rtol=error)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_edits_and_sinks_equal_the_oracle(dtype: torch.dtype) -> None:
    sinks = torch.linspace(-1, 1, 6, device="cuda", dtype=dtype)
    a = layer(dtype, 6, 2, 64, 5, sink_logits=sinks)
    extra = torch.zeros(6, 37, 42, dtype=torch.float64)
    extra[1, :, 3:9] = 1.5
    edited = engine(a.with_bias(slice(3, 9), 1.5, heads=[1]))
    want = oracle.dense(on_cpu(a), extra)
    error = TOLERANCE[dtype]
    assert_close(edited.z.cpu().double(), want.z, atol=error, rtol=error)
    assert_close(edited.lse.cpu().double(), want.lse, atol=error, rtol=error)


def test_a_kernel_takes_no_square_of_tokens() -> None:
    """16 384 tokens in float32 with grouped heads: a pattern would take 8 GiB."""
    generator = torch.Generator("cuda").manual_seed(0)
    q = torch.randn(1, 8, 16_384, 64, device="cuda", generator=generator)
    kv = torch.randn(2, 1, 2, 16_384, 64, device="cuda", generator=generator)
    positions = torch.arange(16_384, device="cuda")[None]
    for window in (None, 4096):
        a = Attention(
            layer=0, q=q, k=kv[0], v=kv[1], scale=0.125, query_positions=positions,
            key_positions=positions, slots=Slots(0, 0, False), window=window,
        )  # fmt: skip
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        z = engine(a).z
        assert torch.cuda.max_memory_allocated() - before < 2**31
        rows = [0, 5_000, 16_383]
        assert_close(z[:, :, rows], torch.einsum("bhqk,bhkd->bhqd", a.rows(rows),
                     kv[1].repeat_interleave(4, 1)), atol=1e-4, rtol=1e-4)  # fmt: skip


def test_answers_equal_those_of_the_cpu() -> None:
    a = layer(torch.float32, 6, 2, 64, 5)
    cpu = dataclasses.replace(on_cpu(a))
    regions = {"streaming": Streaming(4, 16), "first": [0]}
    on_gpu, want = a.row_stats(regions, clip=9), cpu.row_stats(regions, clip=9)
    for name in ("lse", "entropy", "distance", "clipped_distance"):
        found = getattr(on_gpu, name).cpu().double()
        assert_close(found, getattr(want, name), atol=1e-3, rtol=1e-4)
    for name in regions:
        assert_close(on_gpu.mass[name].cpu().double(), want.mass[name], atol=1e-4, rtol=1e-3)
    assert_close(a.column_means().cpu().double(), cpu.column_means(), atol=1e-5, rtol=1e-3)
    assert_close(a.block_map(16).cpu().double(), cpu.block_map(16), atol=1e-5, rtol=1e-3)
    assert_close(a.at([5, 30], [0, 30]).cpu().double(), cpu.at([5, 30], [0, 30]), atol=1e-5,
                 rtol=1e-3)  # fmt: skip


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_model_gives_its_own_logits_and_the_cpu_s_scores(name: str) -> None:
    tokens = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(1))
    model = headscope.load(tiny_model(name).cuda(), tiny_tokenizer())
    cpu = opened(name)
    assert_close(model(tokens).cpu(), cpu(tokens), atol=1e-3, rtol=1e-3)
    names = ["induction", "previous_token", "duplicate_token"]
    prompts = Repeated(samples=2, block=20, times=2)
    found, want = (headscope.scan(m, names, prompts=prompts) for m in (model, cpu))
    for score in names:
        assert np.abs(found[score].values - want[score].values).max() < 1e-3


@pytest.mark.parametrize("d", [64, 80, 128])
def test_long_texts_in_half_precision_equal_the_definition(d: int) -> None:
    """From 32 768 tokens on another kernel takes them; some rows are compared."""
    generator = torch.Generator("cuda").manual_seed(d)

    def normal(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, 32_800, d, device="cuda", generator=generator).bfloat16()

    positions = torch.arange(32_800, device="cuda")[None]
    a = Attention(
        layer=0, q=normal(6), k=normal(2), v=normal(2), scale=d**-0.5, query_positions=positions,
        key_positions=positions, slots=Slots(0, 0, False),
    )  # fmt: skip
    found = engine(a)
    rows = torch.tensor([0, 1, 63, 64, 4_099, 32_767, 32_799], device="cuda")
    logits = torch.einsum(
        "bhqd,bhkd->bhqk", a.q[:, :, rows].float(), a.k.repeat_interleave(3, 1).float()
    )
    logits = (logits * a.scale).masked_fill(positions[0] > rows[:, None], -torch.inf)
    want = logits.softmax(-1) @ a.v.repeat_interleave(3, 1).float()
    assert_close(found.z[:, :, rows].float(), want, atol=2e-2, rtol=2e-2)
    assert_close(found.lse[:, :, rows], logits.logsumexp(-1), atol=1e-3, rtol=1e-3)
