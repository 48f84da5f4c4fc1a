"""The decode kernel equals a dense mask, whatever the lengths, rules and stores."""

import dataclasses
from typing import Any

import pytest
import torch
from decode_cases import Case, make
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.kernels.decode_plan import ALL, DecodePlan, KeyStore
from headscope.kernels.decoding import Tuning, decode

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="interpreted; test_decode_gpu.py is for machines with a GPU"
)
FULL = (0, ALL)
TILE = 16


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels do not write is NaN."""
    fresh = Tensor.new_empty

    def new_empty(self: Tensor, *shape: Any, **rest: Any) -> Tensor:
        found = fresh(self, *shape, **rest)
        return found.fill_(torch.nan) if found.is_floating_point() else found

    monkeypatch.setattr(Tensor, "new_empty", new_empty)


def check(case: Case, softcap: float | None = None, **tuning: Any) -> None:
    scale = case.q.shape[3] ** -0.5
    how = Tuning(**{"tile": TILE, "splits": 4, **tuning})
    z, lse = decode(case.q, case.plan, case.seen, scale, softcap, how)
    want_z, want_lse = case.expected(scale, softcap)
    assert z.dtype == case.q.dtype
    assert_close(z.float(), want_z, atol=4e-3, rtol=4e-3)
    assert_close(lse, want_lse, atol=2e-3, rtol=1e-3)


lengths = st.integers(1, 50) | st.sampled_from([1, TILE, 2 * TILE, 2 * TILE + 1])
see = st.just(FULL) | st.tuples(st.integers(0, 40), st.integers(1, 40))
need = st.none() | st.tuples(st.integers(0, 20), st.integers(1, 40))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[Any], list[Any], list[int], int]:
    needs = draw(st.lists(need, min_size=1, max_size=3))
    group = draw(st.sampled_from([1, 2, 3]))
    alike = draw(st.booleans())
    sees: list[Any] = []
    for one in needs:
        inside = st.just(one or FULL) if alike else see
        sees += [draw(inside) for _ in range(group)]
    kinds = list(range(len(dict.fromkeys(needs))))
    seen = draw(st.lists(lengths, min_size=1, max_size=2))
    return seen, needs, sees, draw(st.permutations(kinds)), draw(st.integers(1, 5))


@settings(max_examples=24, deadline=None)
@given(cases(), st.integers(0, 2**31))
@example(([1], [None], [FULL], [0], 1), 0)
@example(([TILE, 1], [(40, 3), None], [(40, 3)] * 2 + [(40, 3)] * 2, [1, 0], 1), 1)
@example(([67], [None], [(3, 1)] * 4, [0], 1), 2)
@example(([70], [None], [(16, 16)] * 7, [0], 2), 3)
@example(([33, 1, 50], [None], [FULL] * 2, [0], 1), 4)
def test_it_equals_a_dense_mask(drawn: Any, seed: int) -> None:
    seen, needs, sees, order, least = drawn
    check(make(seen, needs, sees, seed=seed, order=order), least=least)


@pytest.mark.parametrize("d", [64, 96, 128, 256])
@pytest.mark.parametrize("softcap", [None, 2.0], ids=["", "capped"])
def test_widths_and_caps(d: int, softcap: float | None) -> None:
    sees = [FULL] * 2 + [(2, 9), FULL] + [(4, 12)] * 2
    check(make([41, 19], [None, None, (4, 12)], sees, d), softcap)


def test_many_query_heads_on_one() -> None:
    check(make([37], [None], [FULL, (3, 9)] * 10))


def test_how_it_is_cut_changes_rounding_alone() -> None:
    case = make([70, 7], [None, (3, 30)], [FULL] * 2 + [(3, 30)] * 2)
    for least, splits in ((1, 1), (3, 2), (100, 16)):
        check(case, least=least, splits=splits, columns=32)


def test_only_what_a_head_sees_is_read() -> None:
    """Between the sinks and the window of heads that all stream, NaN changes nothing."""
    case = make([100], [None], [(5, 20), (8, 13)])
    for x in (case.stores[0].k, case.stores[0].v):
        x[:, :, 8:80] = torch.nan
    check(case)


def test_lengths_grow_under_one_plan() -> None:
    case = make([60], [None], [FULL, (2, 7)], room=0)
    plan = case.plan
    for n in (1, 15, 16, 17, 60):
        case.seen.fill_(n)
        z, lse = decode(case.q, plan, case.seen, 0.125, tuning=Tuning(tile=TILE))
        want_z, want_lse = case.expected(0.125)
        assert_close(z.float(), want_z, atol=4e-3, rtol=4e-3)
        assert_close(lse, want_lse, atol=2e-3, rtol=1e-3)


def test_the_same_bits_each_time() -> None:
    case = make([90, 33], [None, (2, 20)], [FULL] * 2 + [(2, 20)] * 2)
    first, again = (decode(case.q, case.plan, case.seen, 0.1) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_a_head_that_sees_nothing_and_a_store_that_is_too_small() -> None:
    case = make([20, 30], [None], [FULL], room=0)
    case.seen[:] = torch.tensor([0, 31])
    z, lse = decode(case.q, case.plan, case.seen, 0.1)
    assert torch.equal(z[0], torch.zeros_like(z[0]))
    assert lse[0].item() == -torch.inf
    assert z[1].isnan().all()
    assert lse[1].isnan().all()


def test_keys_that_lie_between_others() -> None:
    """As views of larger tensors: [batch, token, head, d], and a slice of it."""
    case = make([33, 20], [None, None], [FULL, (1, 5)] * 2)
    held = case.stores[0]
    k, v = (torch.cat((x, x), 3).transpose(1, 2).contiguous() for x in (held.k, held.v))
    views = [x.transpose(1, 2)[..., 64:] for x in (k, v)]
    case.stores = [KeyStore(views[0][:, kv : kv + 1], views[1][:, kv : kv + 1], [kv])
                   for kv in (1, 0)]  # fmt: skip
    check(case)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"k": torch.zeros(1, 1, 9, 80).half(), "v": torch.zeros(1, 1, 9, 80).half()}, "80"),
        ({"k": torch.zeros(1, 1, 9, 64), "v": torch.zeros(1, 1, 9, 64)}, "float32"),
        ({"kv_heads": [1]}, r"cannot read the KV heads \[1\]"),
        ({"ring": (2, 0)}, "holds nothing"),
        ({"k": torch.zeros(1, 1, 64, 9).half().mT}, "side by side"),
        ({"k": torch.zeros(1, 1, 9, 68).half()[..., 4:]}, "multiples of 16 bytes"),
    ],
)
def test_stores_that_cannot_be_read(change: dict[str, Any], said: str) -> None:
    k = torch.zeros(1, 1, 9, 64).half()
    with pytest.raises(HeadscopeError, match=said):
        DecodePlan.of([dataclasses.replace(KeyStore(k, k, [0]), **change)], [FULL])


def test_other_queries_and_lengths() -> None:
    case = make([9, 4], [None], [FULL] * 2)
    with pytest.raises(HeadscopeError, match="The plan is for q of shape"):
        decode(case.q[:, :1], case.plan, case.seen, 1.0)
    with pytest.raises(HeadscopeError, match="has to be int32"):
        decode(case.q, case.plan, case.seen.long(), 1.0)
    with pytest.raises(HeadscopeError, match="up to 64 query heads"):
        DecodePlan.of(case.stores, [FULL] * 65)
