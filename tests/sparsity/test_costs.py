"""Costs as a table: which attention is timed, what a plan makes of it, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import opened

from headscope.errors import HeadscopeError
from headscope.patterns import Full, Streaming
from headscope.sparsity import Costs, Recalls, measure_costs, plan
from headscope.sparsity.costs import Timed
from headscope.sparsity.profile import ProfiledModel

RULES = (Streaming(2, 4), Full())


def test_each_kind_of_layer_is_timed_at_each_length_and_phase() -> None:
    model = opened("gemma3")
    found = measure_costs(model, RULES[:1], (12, 20), repeats=2)
    assert found.kinds == (0, 1, 0)
    assert [(each.n, each.phase) for each in found.timed] == [
        (12, "prefill"), (12, "decode"), (20, "prefill"), (20, "decode"),
    ]  # fmt: skip
    for each in found.timed:
        assert np.array(each.seconds).shape == np.array(each.spread).shape == (2, 2)
        assert np.array(each.seconds).min() > 0
    assert len(found.table()) == 4 * 2 * 2
    assert found.device == "cpu"
    assert "torch" in found.versions


def test_what_was_timed_is_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Any
) -> None:
    path = tmp_path / "costs.json"

    def stop(_: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_costs(llama, RULES, (8, 16), repeats=1, out=path, progress=stop)
    half = Costs.load(path)
    assert {each.n for each in half.timed} == {8}
    whole = measure_costs(llama, RULES, (16, 8), repeats=1, out=path)
    assert whole.timed[:2] == half.timed
    monkeypatch.setattr("headscope.sparsity.costs._read", None)
    assert measure_costs(llama, RULES, (8, 16), repeats=1, out=path) == whole
    with pytest.raises(HeadscopeError, match="holds other costs"):
        measure_costs(llama, RULES, (8, 16), repeats=2, out=path)


def made(fast: float) -> tuple[ProfiledModel, Costs]:
    """A layer of one kind and one of another, whose full attention takes three times as long."""
    model = ProfiledModel(name="made", layers=(0, 1), n_heads=4, n_kv_heads=2, d_head=8)
    seconds = ((fast, 1.0), (3 * fast, 3.0))
    timed = [
        Timed(n=32, phase="prefill", seconds=seconds, spread=seconds, residual=(0.0, 0.0)),
        Timed(n=32, phase="decode", seconds=((1.0, 1.0), (3.0, 3.0)), spread=seconds,
              residual=(0.0, 0.0)),
    ]  # fmt: skip
    rules = tuple(dict(rule.to_dict()) for rule in RULES)
    costs = Costs(
        model=model, device="cpu", dtype="float32", threads=1, rules=rules, lengths=(32,),
        repeats=1, kinds=(0, 1), timed=timed,
    )  # fmt: skip
    return model, costs


def test_a_plan_by_latency_saves_where_time_is_spent() -> None:
    model, costs = made(0.2)
    kept = np.full((1, 2, 4, 2), 0.5)
    kept[..., 1] = 1
    recalls = Recalls.of(model, RULES, (32,), kept)
    # Full attention takes 1 + 1 + 3 + 3: one head of the second layer is enough to save a quarter.
    found = plan(recalls, "latency=0.7", costs=costs)
    assert found.profile.of_layer(0) == (Full(),) * 4
    assert found.profile.of_layer(1).count(Full()) == 2
    assert found.taken[0].budget == pytest.approx((1 + 1 + 3 + 0.6) / 8)
    assert found.phase == "prefill"
    with pytest.raises(HeadscopeError, match=r"below the smallest.*plan for longer texts"):
        plan(recalls, "decode_latency=0.9", costs=costs)
    with pytest.raises(HeadscopeError, match=r"smallest.*0\.2:"):
        plan(recalls, "latency=0.1", costs=costs)


def test_costs_of_something_else_are_refused() -> None:
    model, costs = made(0.2)
    other = model.model_copy(update={"fingerprint": "x"})
    wider = (Streaming(2, 9), Full())
    for facts, rules, n, said in (
        (other, RULES, 32, "another model or other weights"),
        (model, wider, 32, "were not measured"),
        (model, RULES, 64, "64 tokens"),
    ):
        with pytest.raises(HeadscopeError, match=said):
            plan(Recalls.of(facts, rules, (n,), np.ones((1, 2, 4, 2))), "latency=1", costs=costs)


@pytest.mark.parametrize("lengths", [(), (0,), (128,), (-3, 8)])
def test_lengths_that_cannot_be_timed(lengths: tuple[int, ...], llama: Any) -> None:
    with pytest.raises(HeadscopeError, match="lengths from 1 to 127"):
        measure_costs(llama, RULES, lengths)


def test_damaged_costs(tmp_path: Path) -> None:
    _, costs = made(0.2)
    path = costs.save(tmp_path / "c.json")
    assert Costs.load(path) == costs
    path.write_text(path.read_text().replace('"repeats": 1', '"repeats": 0'))
    with pytest.raises(HeadscopeError, match="measure the costs again"):
        Costs.load(path)
