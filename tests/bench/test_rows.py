"""Rows of prefill and decode on interpreted kernels, under a meter that has no clock."""

import pytest
import torch
from bench_cases import (
    AGAINST_ON_CPU,
    STREAM,
    Broken,
    Counted,
    Plain,
    Reference,
    Unfit,
    copying_little,
    half,
    interpreted,
    interpreter,
    profile,
)
from torch.testing import assert_close

from headscope.bench.decode import made_step, why_no_step
from headscope.bench.inputs import made_case
from headscope.bench.prefill import measure_prefill
from headscope.bench.result import Bench
from headscope.bench.running import bench, layers_of
from headscope.bench.tables import decode_table, parts_table, prefill_table, sentences
from headscope.errors import HeadscopeError
from headscope.kernels.decode_plan import DecodePlan
from headscope.kernels.decoding import decode
from headscope.patterns import Full
from headscope.patterns.selectors.block_top_k import BlockTopK
from headscope.sparsity.decoding import seen_by
from headscope.sparsity.engine import attend_by_reference

__all__ = ["interpreter"]
CPU = torch.device("cpu")
HALF = torch.float16
N = 260


@pytest.fixture(scope="module")
def measured() -> Bench:
    told: list[tuple[str, int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        interpreted(patch)
        copying_little(patch)
        found = bench(
            half(), (N,), Counted(), AGAINST_ON_CPU, name="half", batches=(1, 2), rounds=2,
            dtype=HALF, command="headscope bench", progress=lambda *each: told.append(each),
        )  # fmt: skip
    assert told == [
        ("prefill", 1, 2), ("prefill", 2, 2), *(("decode", i, 4) for i in range(1, 5)),
    ]  # fmt: skip
    return found


def test_a_profile_from_end_to_end(measured: Bench) -> None:
    assert [(row.layers, row.n) for row in measured.prefill] == [(2, N), (1, N)]
    row = measured.prefill[0]
    assert (row.dense, row.asked, row.dispatch, row.dense_part) == ("plain", "auto", "single", None)
    assert row.rules == {"full": 2, str(STREAM): 2}
    assert row.programs == 4 * 5
    assert row.ours.faster == 1.0
    assert row.reached == pytest.approx(1 / row.limit)
    assert row.limit_64 > row.limit == 1.0
    assert (row.attention, row.lists, row.plan_seconds) == (None, None, 0.5)
    assert set(row.others) == {"plain", "reference"}
    assert row.others["plain"].difference is None
    assert row.others["reference"].difference == pytest.approx(0, abs=2e-3)
    assert row.others["reference"].mask_seconds == 0.25
    assert measured.profile == "half"
    assert measured.versions["torch"] == torch.__version__


def test_decode_counts_the_bytes_that_are_held(measured: Bench) -> None:
    assert [(row.layers, row.batch) for row in measured.decode] == [(2, 1), (1, 1), (2, 2), (1, 2)]
    for row in measured.decode:
        held = (N + 44) if row.layers == 2 else 2 * 44
        assert row.bytes_read == row.batch * held * 2 * 64 * 2
        assert row.bytes_dense == row.batch * 2 * N * 2 * 64 * 2
        assert row.limit == 2 * N / held
        assert row.share.median == pytest.approx(row.bytes_read / 2**13)  # all took the same time
        assert row.gbs == row.bytes_read / 2e6
        assert set(row.others) == {"plain"}


def test_tables_put_layers_together(measured: Bench) -> None:
    (row,) = prefill_table(measured).to_dict("records")
    assert (row["n"], row["layers"], row["ms"], row["speed-up"]) == (N, 3, 6.0, 1.0)
    limits = [each.limit for each in measured.prefill]
    assert row["limit"] == pytest.approx(3 / (2 / limits[0] + 1 / limits[1]))
    assert row["reference"] == 1.0
    assert list(parts_table(measured)["dispatch"]) == ["single", "single"]
    assert list(decode_table(measured)["batch"]) == [1, 1, 2, 2]
    assert sentences(measured) == [
        "Quality: the profile does not say; give --quality MODEL to measure it."
    ]


def test_rules_by_content_are_timed_apart(interpreter: None) -> None:
    rules = (Full(), Full(), BlockTopK(block=64, blocks=2), BlockTopK(block=64, blocks=2))
    case = made_case(rules, 2, 64, 130, CPU, HALF)
    row = measure_prefill(case, AGAINST_ON_CPU, Counted(), 1, "mix")
    assert row.attention is not None
    assert row.lists is not None
    assert row.others["reference"].difference == pytest.approx(0, abs=5e-3)
    assert row.limit_64 > 1


def test_what_breaks_is_left_out_with_the_reason(interpreter: None) -> None:
    case = made_case((Full(), STREAM) * 2, 2, 64, 70, CPU, HALF)
    against = (Plain(), Broken(), Unfit(), Reference("right"), Reference("wrong", 0.1))
    row = measure_prefill(case, against, Counted(), 1, "mix")
    assert set(row.others) == {"plain", "right"}
    assert row.left_out["broken"] == "it failed (RuntimeError: no such)"
    assert row.left_out["unfit"] == "it is Tuesday"
    assert "differs from headscope's by" in row.left_out["wrong"]


def test_without_a_dense_kernel_nothing_is_compared(interpreter: None) -> None:
    case = made_case((Full(), STREAM) * 2, 2, 64, 70, CPU, HALF)
    with pytest.raises(HeadscopeError, match="No dense kernel runs here"):
        measure_prefill(case, (Reference(),), Counted(), 1, "mix")


def test_a_step_reads_what_the_rules_say(interpreter: None) -> None:
    """Rings hold the first tokens: a step over them is one of a text that ended there."""
    step = made_step(half(), 0, 44, 2, CPU, HALF)
    sees = [see for see in map(seen_by, step.rules) if see is not None]
    plan = DecodePlan.of(step.stores(), sees)
    z, _ = decode(step.q, plan, torch.full((2,), 44, dtype=torch.int32), 0.125)
    want = torch.nn.functional.scaled_dot_product_attention(
        step.q.float(), step.k.float(), step.v.float(), enable_gqa=True
    )
    assert_close(z.float(), want, atol=2e-3, rtol=2e-3)
    long = made_step(half(), 0, 200, 1, CPU, HALF)
    assert [(store.ring, store.k.shape[2]) for store in long.stores()] == [
        (None, 200), ((4, 40), 44),
    ]  # fmt: skip


def test_rules_that_the_decode_kernel_does_not_take_are_skipped(interpreter: None) -> None:
    rule = BlockTopK(block=64, blocks=2)
    assert why_no_step((Full(), STREAM)) is None
    given = profile([[Full(), Full(), rule, rule]])
    found = bench(given, (70,), Counted(), AGAINST_ON_CPU, part="decode", rounds=1, dtype=HALF)
    assert (found.prefill, found.decode) == ([], [])
    (skipped,) = found.skipped
    assert skipped.reason == f"the decode kernel takes full and streaming heads, not {rule}"
    assert "Left out of decode" in sentences(found)[0]


def test_layers_that_are_alike_are_one_kind() -> None:
    assert layers_of(half()) == {0: 2, 1: 1}


def test_the_reference_baseline_is_the_reference() -> None:
    case = made_case((Full(), STREAM) * 2, 2, 64, 70, CPU, torch.float32)
    made = Reference().ready(case)
    assert made.joined is not None
    assert_close(made.joined(), attend_by_reference(case.attention(), case.rules).z)
