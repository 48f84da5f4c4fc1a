"""The envelope against the closed form, and models that the rotation probes refuse."""

import dataclasses

import pytest
import torch
from conftest import opened

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.probes.causal_mask_bias import CausalMaskBias
from headscope.probes.rope_distance import RopeDistance
from headscope.probes.waveform import Waveform
from headscope.prompts import Prompt

REACH = 100


def measured(probe: Probe, **changes: object) -> dict[str, torch.Tensor]:
    """What a probe gives on the first layer of the tiny Llama, changed as said."""
    model = opened("llama")
    prompt = Prompt(tuple(range(3, 43)))
    ids = torch.tensor(prompt.token_ids)
    seen: list[Attended] = []
    with model.observed(seen.append):
        model(ids[None])
    attention = dataclasses.replace(seen[0].attention, known_lse=None, **changes)
    reading = Reading(prompt, model, ids, ids[:0], ids[:0])
    return dict(probe.measure(Attended(seen[0].z, attention), reading))


def test_equal_norms_give_the_closed_form() -> None:
    """(1 / pairs) sum_t cos(m base^(-2t / d)), for every head."""
    q, k = torch.ones(1, 6, 40, 8), torch.ones(1, 2, 40, 8)
    found = measured(Waveform(reach=REACH), q=q, k=k)
    theta = 10_000.0 ** (-torch.arange(4) / 4)
    envelope = torch.cos(torch.arange(REACH + 1)[:, None] * theta).mean(1)
    for head in range(6):
        torch.testing.assert_close(
            found["waveform_curve"][head], envelope[Waveform(reach=REACH).distances],
            atol=1e-4, rtol=0,
        )  # fmt: skip
        assert float(found["waveform"][head]) == pytest.approx(1 - float(envelope.min()), abs=1e-4)
        assert int(found["waveform_trough"][head]) == int(envelope.argmin())


def test_one_pair_alone_has_its_trough_at_half_its_wavelength() -> None:
    q = torch.zeros(1, 6, 40, 8)
    q[..., 1] = 3.0  # theta = 0.1: half a turn in 31.4 tokens
    found = measured(Waveform(reach=REACH), q=q)
    torch.testing.assert_close(found["waveform"], torch.full((6,), 2.0), atol=2e-3, rtol=0)
    assert found["waveform_trough"].tolist() == [94.0] * 6  # 3 half turns come nearest to a token


@pytest.mark.parametrize("reach", [1, 2, 40, 64, 1024, 4000])
def test_the_points_of_the_curve_rise_up_to_the_reach(reach: int) -> None:
    distances = Waveform(reach=reach).distances
    assert distances == sorted(set(distances))
    assert (distances[0], distances[-1], len(distances)) == (1, reach, min(64, reach))


@pytest.mark.parametrize("silent", [{"q": torch.zeros(1, 6, 40, 8)}, {"rope": None}])
def test_what_cannot_be_told_is_zero(silent: dict[str, object]) -> None:
    for probe in (Waveform(reach=REACH), RopeDistance(nearest=1), CausalMaskBias()):
        found = measured(probe, **silent)
        assert all(bool(score.isfinite().all()) for score in found.values()), probe.name
    assert bool((measured(RopeDistance(nearest=1), **silent)["rope_distance"] == 0).all())
    assert bool((measured(Waveform(reach=REACH), rope=None)["waveform"] == 0).all())


@pytest.mark.parametrize("kind", [Waveform, RopeDistance, CausalMaskBias])
def test_a_rotation_that_is_not_understood_is_refused(
    kind: type[Waveform | RopeDistance | CausalMaskBias], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened("llama")
    monkeypatch.setattr(model.backend.layers[1], "rotary", "it is odd")
    with pytest.raises(HeadscopeError, match=f"'{kind.name}'.*layer 1.*it is odd"):
        kind().check_model(model)


def test_a_reach_beyond_the_context_is_refused(llama: headscope.HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="between 1 and 127"):
        Waveform().check_model(llama)
