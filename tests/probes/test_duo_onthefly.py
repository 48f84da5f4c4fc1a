"""The area under the attention of mean queries, where it is known beforehand."""

import dataclasses

import definitions
import pytest
import torch
from conftest import opened

from headscope import blocks
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.duo_onthefly import DuoOnthefly
from headscope.probes.rotation import mean_over_rows
from headscope.rope import Rope


def test_keys_of_zeros_are_attended_to_evenly_and_no_further_than_the_window() -> None:
    for name, seen in (("llama", 20), ("mistral", 8)):
        case = definitions.cases(opened(name))[0]
        even = dataclasses.replace(case.attention, k=torch.zeros_like(case.attention.k))
        attended = Attended(case.attention.z(), even)
        score = DuoOnthefly(length=20).measure(attended, case.reading)["duo_onthefly"]
        torch.testing.assert_close(score, torch.full_like(score, (seen + 1) / 2 / 20))


def test_a_layer_without_rotation_prefers_no_position() -> None:
    case = definitions.cases(opened("llama"))[0]
    plain = Attended(case.attention.z(), dataclasses.replace(case.attention, rope=None))
    score = DuoOnthefly(length=20).measure(plain, case.reading)["duo_onthefly"]
    torch.testing.assert_close(score, torch.full_like(score, 21 / 40))


def test_a_single_position_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="'duo_onthefly' needs a length"):
        DuoOnthefly(length=1)


@pytest.mark.parametrize("budget", [1, 2**22])
def test_tables_that_depend_on_the_length_are_asked_for_all_of_it(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocks._BLOCK, "cpu", budget)
    case = definitions.cases(opened("llama"))[0]
    attention = case.attention
    angles = attention.q.shape[-1] // 2

    def tables(positions: torch.Tensor, _: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        turns = positions[..., None] / (1 + int(positions.max()) // 8 + torch.arange(angles))
        return turns.cos(), turns.sin()

    rope = Rope(tables)
    plain = attention.k.mean(2, keepdim=True).expand_as(attention.k).contiguous()
    turned = rope.rotate(plain, attention.key_positions)
    mean = mean_over_rows(
        dataclasses.replace(attention, k=turned, rope=rope),
        turned,
        lambda x, _: rope.unrotate(x, attention.key_positions),
    )
    torch.testing.assert_close(mean, plain[:, :, 0])
