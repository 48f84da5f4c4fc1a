"""A decode step of a layer, and of a model with a `HeadCache`, on the kernel equals torch."""

import contextlib
import copy
import dataclasses
from typing import Any

import pytest
import torch
from head_caches import TOKENS, read
from torch import Tensor
from torch.testing import assert_close
from wide_llama import wide_llama

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.edits import Bias
from headscope.errors import HeadscopeError
from headscope.head_cache import HeadCache
from headscope.interventions.sparse_attention import SparseAttention
from headscope.kernels import decoding
from headscope.kernels.choice import using
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile
from headscope.sparsity.decoding import decode_step
from headscope.sparsity.engine import attend_sparsely

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="interpreted; test_decode_gpu.py is for machines with a GPU"
)
RULES = (Full(), Streaming(3, 9), Streaming(4, 12), Streaming(4, 12))


def step(n: int = 40, first: int = 0, dtype: torch.dtype = torch.float16, **rest: Any) -> Attention:
    """The step of the token at position first + n - 1."""
    generator = torch.Generator().manual_seed(n)
    q, k, v = (torch.randn(2, h, m, 64, generator=generator).to(dtype)
               for h, m in ((4, 1), (2, n), (2, n)))  # fmt: skip
    positions = torch.arange(first, first + n).expand(2, -1)
    plain = Attention(
        layer=0, q=q, k=k, v=v, scale=0.125, query_positions=positions[:, -1:],
        key_positions=positions, slots=Slots(first + n - 1, first, False),
    )  # fmt: skip
    return dataclasses.replace(plain, **rest)


@pytest.mark.parametrize(
    ("n", "first", "rest"),
    [
        (40, 0, {}),
        (1, 0, {}),
        (40, 0, {"softcap": 3.0, "sink_logits": torch.tensor([0.5, -1.0, 3.0, 0.0])}),
        (40, 0, {"window": 10}),
        (10, 30, {"window": 10}),  # a sliding layer holds its window alone
        (10, 2, {"window": 12}),
    ],
    ids=str,
)
def test_it_says_what_the_reference_says(n: int, first: int, rest: dict[str, Any]) -> None:
    attention = step(n, first, **rest)
    done = decode_step(attention, RULES)
    assert done is not None
    wide = dataclasses.replace(attention, **{x: getattr(attention, x).float() for x in "qkv"})
    want = attend_sparsely(wide, RULES)
    assert_close(done.z.float(), want.z, atol=4e-3, rtol=4e-3)
    assert_close(done.lse.float(), want.lse.float(), atol=2e-3, rtol=1e-3)
    assert_close(done.attention.lse().float(), want.lse.float(), atol=5e-3, rtol=5e-3)
    assert_close(done.attention.rows([0]).float(), want.attention.rows([0]), atol=5e-3, rtol=5e-3)


def test_slots_behind_the_last_key_are_not_read() -> None:
    """A static cache has more of them than keys."""
    attention = step(40)
    want = decode_step(attention, RULES)
    k, v = (torch.cat((x, torch.full_like(x, torch.nan)), 2) for x in (attention.k, attention.v))
    positions = torch.arange(80).expand(2, -1)
    found = decode_step(dataclasses.replace(attention, k=k, v=v, key_positions=positions), RULES)
    assert want is not None
    assert found is not None
    assert torch.equal(found.z, want.z)


def test_other_steps_are_left_to_the_reference() -> None:
    attention = step(40)
    changes: list[dict[str, Any]] = [
        {"slots": None},
        {"slots": Slots(39, 0, True)},
        {"slots": Slots(40, 0, False)},
        {"chunk": 8},
        {"mask": torch.ones(2, 1, 1, 40, dtype=torch.bool)},
        {"edits": (Bias.of(attention, [0], 1.0, None),)},
        {
            "q": attention.q.expand(-1, -1, 2, -1),
            "query_positions": attention.key_positions[:, -2:],
        },
        {"window": 38},  # the sinks are leaving it
    ]
    for change in changes:
        assert decode_step(dataclasses.replace(attention, **change), RULES) is None
    assert decode_step(attention, (*RULES[:3], Streaming(4, 9, growth=0.1))) is None
    with torch.enable_grad():
        trained = dataclasses.replace(attention, v=attention.v.clone().requires_grad_())
        assert decode_step(trained, RULES) is None
    with using("reference"):
        assert decode_step(attention, RULES) is None


def test_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    narrow = step(9, dtype=torch.float32)
    with using("triton"), pytest.raises(HeadscopeError, match="these are float32"):
        decode_step(narrow, RULES)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert decode_step(step(9), RULES) is None
    assert not caplog.records
    with using("triton"), pytest.raises(HeadscopeError, match="no GPU"):
        decode_step(step(9), RULES)


# ---- a model -----------------------------------------------------------------------------------


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many stores each launch was over."""
    found: list[int] = []
    launch = decoding.launch

    def counted(q: Tensor, plan: Any, *rest: Any) -> Any:
        found.append(len(plan.stores))
        return launch(q, plan, *rest)

    monkeypatch.setattr(decoding, "launch", counted)
    return found


def test_layers_of_a_step_share_what_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lengths; and of full rings, which do not move, the table of addresses."""
    given: list[tuple[Tensor, Tensor]] = []
    launch = decoding.launch

    def kept(q: Tensor, plan: Any, seen: Tensor, *rest: Any) -> Any:
        given.append((seen, plan.places))
        return launch(q, plan, seen, *rest)

    monkeypatch.setattr(decoding, "launch", kept)
    model = wide_llama(torch.float16)
    profile = SparseProfile.of(model, {}, rest=Streaming(1, 5))
    with using("triton"), SparseAttention(profile)(model):
        read(model, TOKENS[:2, :12], HeadCache(profile), (8, 1, 1, 1, 1))
    for step, (first, second) in enumerate(zip(given[::2], given[1::2], strict=True)):
        assert first[0] is second[0]
        assert first[0].tolist() == [9 + step] * 2
        assert first[0].dtype == torch.int32
        assert first[1] is given[0][1]
        assert second[1] is given[1][1]


def test_a_copied_cache_is_read_where_it_stands() -> None:
    model = wide_llama(torch.float16)
    profile = SparseProfile.of(model, {}, rest=Streaming(1, 5))
    said = {}
    for impl in ("reference", "triton"):
        with using(impl), SparseAttention(profile)(model):  # type: ignore[arg-type]
            cache = HeadCache(profile)
            read(model, TOKENS[:2, :10], cache, (8, 1, 1))
            other = copy.deepcopy(cache)
            pieces = ((cache, TOKENS[:2, 10:13]), (other, TOKENS[1:3, 20:23]))
            said[impl] = torch.cat([read(model, new, c, (1, 1, 1)) for c, new in pieces])
    assert_close(said["triton"].float(), said["reference"].float(), atol=6e-2, rtol=2e-2)


MIXED = {"L0H0": Full(), "L0H3": Streaming(1, 3), "L1H1": Streaming(0, 5), "L1H4": Full()}


@pytest.mark.parametrize("profiled", [True, False], ids=["profiled", "by itself"])
def test_a_head_cache_in_one_launch(launches: list[int], profiled: bool) -> None:
    model = wide_llama(torch.float16)
    profile = SparseProfile.of(model, MIXED, rest=Streaming(2, 6))
    tokens, sizes = TOKENS[:2, :26], (4, 1, 1, 18, 1, 1)
    said = {}
    for impl in ("reference", "triton"):
        cache = HeadCache(profile)
        scope = SparseAttention(profile)(model) if profiled else contextlib.nullcontext()
        with using(impl), scope:  # type: ignore[arg-type]
            said[impl] = read(model, tokens, cache, sizes)
        assert cache.kv_bytes() == profile.kv_bytes(26, 2, 2)
    assert launches == [len(set(profile.held(layer))) for _ in range(4) for layer in (0, 1)]
    assert_close(said["triton"].float(), said["reference"].float(), atol=6e-2, rtol=2e-2)
