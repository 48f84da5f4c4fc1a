"""The direct path to the logits, and the probes that follow it."""

import dataclasses

import definitions
import pytest
import torch
from conftest import opened
from tiny import CONFIGS, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes import copying
from headscope.probes.base import Probe
from headscope.probes.copying import Copying
from headscope.probes.locos import Locos
from headscope.probes.readout import mean_direction, token_directions


@pytest.mark.parametrize("backend", ["hf", "lens"])
def test_directions_are_the_logits_up_to_one_scale(architecture: str, backend: str) -> None:
    model = opened(architecture, backend)
    stream = torch.randn(1, 1, model.d_model)
    norm, zero = model.final_norm, torch.zeros(1, 1, model.d_model)
    logits = ((norm(stream) - norm(zero)) @ model.unembed)[0, 0]
    size = stream - stream.mean() if norm(torch.ones_like(zero)).equal(norm(zero)) else stream
    ids = torch.tensor([3, 50, 96])
    ours = token_directions(model, ids) @ stream[0, 0] / size.square().mean().sqrt()
    torch.testing.assert_close(ours, logits[ids], atol=1e-3, rtol=1e-3)
    mean = mean_direction(model) @ stream[0, 0] / size.square().mean().sqrt()
    torch.testing.assert_close(mean, logits.mean(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("probe", [Locos(), Copying()])
def test_models_without_a_direct_path_are_refused(probe: Probe) -> None:
    gated = tiny_model("llama")
    for block in gated.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,))
    with pytest.raises(HeadscopeError, match=f"'{probe.name}' cannot follow.*gates"):
        probe.check_model(headscope.load(gated, tiny_tokenizer()))
    config = CONFIGS["opt"]()
    config.word_embed_proj_dim = 24
    projected = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(HeadscopeError, match=f"'{probe.name}' follows.*Linear stands"):
        probe.check_model(headscope.load(projected, tiny_tokenizer()))


def test_locos_reads_the_answer_s_rows_alone_as_it_reads_the_whole_pass() -> None:
    model, probe = opened("llama"), Locos()
    probe.check_model(model)
    whole = definitions.cases(model)
    reading, cache = whole[0].reading, model.new_cache()
    first = int(reading.answer_rows[0])
    model(reading.token_ids[None, :first], cache=cache)
    seen: list[Attended] = []
    with model.observed(seen.append):
        model(reading.token_ids[None, first:-1], cache=cache)
    tail = dataclasses.replace(reading, answer_rows=torch.arange(len(reading.response)))
    for case, attended in zip(whole, seen, strict=True):
        full = probe.measure(Attended(case.attention.z(), case.attention), reading)["locos"]
        torch.testing.assert_close(probe.measure(attended, tail)["locos"], full)


def test_copying_takes_keys_in_parts_where_all_would_be_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = opened("qwen2")
    Copying().check_model(model)
    case = definitions.cases(model)[1]
    attended = Attended(case.attention.z(), case.attention)
    at_once = Copying().measure(attended, case.reading)["copying"]
    monkeypatch.setattr(copying, "budget", lambda _: 6 * 17 * 5)
    torch.testing.assert_close(Copying().measure(attended, case.reading)["copying"], at_once)
