import dataclasses

import pytest
import torch
from definitions import cases

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.qada import Qada
from headscope.prompts import Prompt


def measured(probe: Qada, llama: headscope.HeadModel, **changes: object) -> dict[str, list[float]]:
    case = cases(llama)[0]
    changed = dataclasses.replace(case.attention, known_lse=None, **changes)
    found = probe.measure(Attended(changed.z(), changed), case.reading)
    return {name: score.tolist() for name, score in found.items()}


def test_a_window_within_the_local_one_has_no_bulk(llama: headscope.HeadModel) -> None:
    found = measured(Qada(sinks=2, local=8), llama, window=8)
    assert found == {name: [0.0] * 6 for name in Qada.score_names()}
    found = measured(Qada(sinks=2, local=8), llama, chunk=8)
    assert found == {name: [0.0] * 6 for name in Qada.score_names()}


def test_keys_that_are_all_alike_are_estimated_exactly(llama: headscope.HeadModel) -> None:
    """Without any spread the Gaussian is exact, and every row's share is that of its keys."""
    attention = cases(llama)[0].attention
    alike = torch.ones_like(attention.k)
    found = measured(Qada(sinks=2, local=4, tau=0.61), llama, k=alike)
    rows = range(6, 44)
    long = sum((i - 5) / (i + 1) > 0.39 for i in rows) / len(rows)
    assert found["qada"] == pytest.approx([long] * 6)
    assert found["qada_estimated"] == pytest.approx([long] * 6)
    assert found["qada_false_negative"] == found["qada_false_positive"] == [0.0] * 6
    assert found["qada_correlation"] == pytest.approx([1.0] * 6, abs=1e-4)


def test_logits_of_any_size_give_numbers(llama: headscope.HeadModel) -> None:
    attention = cases(llama)[0].attention
    for factor in (0.0, 1e3, 1e6):
        found = measured(Qada(sinks=2, local=4), llama, q=attention.q * factor)
        values = torch.tensor(list(found.values()))
        assert bool(torch.isfinite(values).all())
        assert float(values[:4].min()) >= 0
        assert float(values[:4].max()) <= 1
        assert float(values[4].abs().max()) <= 1 + 1e-5


def test_prompts_without_a_bulk_are_refused() -> None:
    with pytest.raises(HeadscopeError, match=r"'qada' needs more than sinks \+ local = 272 tokens"):
        Qada().check(Prompt(tuple(range(272))))
    for wrong in ({"sinks": -1}, {"local": 0}, {"tau": 1.0}):
        with pytest.raises(HeadscopeError, match="'qada' needs sinks >= 0"):
            Qada(**wrong)
