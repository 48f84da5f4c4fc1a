"""On a GPU, at larger sizes: the decode kernel equals a dense mask, under CUDA graphs too."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from decode_cases import Case, make
from head_caches import read
from torch.testing import assert_close
from waiting import never_waiting
from wide_llama import wide_llama

from headscope.head_cache import HeadCache
from headscope.interventions.sparse_attention import SparseAttention
from headscope.kernels.choice import using
from headscope.kernels.decode_plan import ALL
from headscope.kernels.decoding import decode
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FULL, STREAM = (0, ALL), (128, 1024)
BOUND = {torch.bfloat16: 8e-3, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors that nothing was written to are NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


def check(case: Case, softcap: float | None = None) -> None:
    scale = case.q.shape[3] ** -0.5
    z, lse = decode(case.q, case.plan, case.seen, scale, softcap)
    want_z, want_lse = case.expected(scale, softcap)
    bound = BOUND[case.q.dtype]
    assert_close(z.float(), want_z, atol=bound, rtol=bound)
    assert_close(lse, want_lse, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", list(BOUND), ids=str)
@pytest.mark.parametrize("softcap", [None, 3.0], ids=["", "capped"])
@pytest.mark.parametrize(
    ("seen", "needs", "sees", "d"),
    [
        ([20_011, 1, 6_007], [None] * 2, [FULL] * 8, 128),
        ([9_001], [None, STREAM, None], [FULL] * 4 + [STREAM] * 5 + [FULL, (0, 1), FULL], 128),
        ([20_011, 7], [None, (4, 33)], [STREAM] * 8 + [(4, 33)] * 6 + [(1, 9)] * 2, 64),
        ([20_011], [None, None], [FULL, (3, 50)], 96),
        ([20_011], [None], [FULL, STREAM] * 4, 256),
        ([6_007] * 3, [None], [FULL] * 20, 64),
        ([900, 3], [None], [FULL, (2, 70)] * 20, 128),
        ([900], [None], [FULL] * 64, 256),
        ([64] * 40, [None] * 8, [FULL] * 32, 128),
        ([2_000, 9_001, 2], [None, STREAM] * 4, [FULL] * 16 + [STREAM] * 16, 128),
        ([9_001, 60, 37, 3], [(8, 50), None], [(8, 50), (4, 9), FULL, (9, 60)], 64),
    ],
    ids=["full", "mixed", "streams in a flat store", "mha", "wide", "mqa", "many rows",
         "many wide rows", "many sequences", "rings of any fill", "odd rings"],
)  # fmt: skip
def test_it_equals_a_dense_mask(
    seen: list[int], needs: list[Any], sees: list[Any], d: int, dtype: torch.dtype,
    softcap: float | None,
) -> None:  # fmt: skip
    check(make(seen, needs, sees, d, device="cuda", dtype=dtype), softcap)


def test_a_graph_is_replayed_while_sequences_grow() -> None:
    sees = [FULL] * 4 + [STREAM] * 4 + [STREAM, (5, 70), FULL, FULL]
    case = make([5_000, 4_000], [None] * 3, sees, 128, device="cuda", dtype=torch.bfloat16)
    plan = case.plan
    case.seen.fill_(1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        decode(case.q, plan, case.seen, 0.1)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z, lse = decode(case.q, plan, case.seen, 0.1)
    for lengths in ([1, 1], [63, 64], [65, 1_152], [1_153, 1_200], [5_000, 4_000], [2, 3_999]):
        case.seen.copy_(torch.tensor(lengths))
        z.fill_(torch.nan)
        graph.replay()
        want_z, want_lse = case.expected(0.1)
        assert_close(z.float(), want_z, atol=8e-3, rtol=8e-3)
        assert_close(lse, want_lse, atol=2e-3, rtol=1e-3)


def test_nothing_waits_for_the_device() -> None:
    case = make([3_000], [None, (4, 50)], [FULL] * 4 + [(4, 50)] * 4, device="cuda")
    decode(case.q, case.plan, case.seen, 0.1)
    with never_waiting():
        decode(case.q, case.plan, case.seen, 0.1)


@pytest.mark.parametrize("profiled", [True, False], ids=["profiled", "by itself"])
def test_a_head_cache_says_what_the_reference_says(profiled: bool) -> None:
    model = wide_llama(torch.float16, "cuda")
    rules = {"L0H0": Full(), "L0H3": Streaming(1, 90), "L1H4": Full()}
    profile = SparseProfile.of(model, rules, rest=Streaming(4, 200))
    tokens = torch.randint(3, 97, (2, 700), generator=torch.Generator().manual_seed(1)).cuda()
    sizes = (60, 1, 1, 600, *[1] * 38)
    said = {}
    for impl in ("reference", "triton"):
        cache = HeadCache(profile)
        with using(impl):  # type: ignore[arg-type]
            if profiled:
                with SparseAttention(profile)(model):
                    said[impl] = read(model, tokens, cache, sizes)
            else:
                said[impl] = read(model, tokens, cache, sizes)
        assert cache.kv_bytes() == profile.kv_bytes(700, 2, 2)
    assert_close(said["triton"].float(), said["reference"].float(), atol=6e-2, rtol=2e-2)
