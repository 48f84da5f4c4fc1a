"""Edits of what heads say: what conformance does not ask."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from altered.focus_directions import methods as focusing
from altered.iti import methods as itis
from conftest import opened
from interventions.directed import TOKENS, last_z, said, sounding, trained
from tiny import tiny_model, tiny_tokenizer
from torch.testing import assert_close

import headscope
from headscope.errors import HeadscopeError
from headscope.interventions.ablate import Ablate
from headscope.interventions.concept import Concept
from headscope.interventions.directions import Directions
from headscope.interventions.instruction_anchors import InstructionAnchors
from headscope.interventions.iti import ITI
from headscope.interventions.output_directions import OutputDirections
from headscope.interventions.rescale_concept import RescaleConcept
from headscope.interventions.scale_heads import ScaleHeads
from headscope.prompts import Repeated
from headscope.prompts.base import Prompt


def test_output_directions_lead_from_one_mean_to_the_other() -> None:
    model, towards, away = opened("llama"), sounding(0), sounding(1, 25)
    found = OutputDirections.train(model, towards, away, count=5)
    one, two = last_z(model, towards), last_z(model, away)
    for head, theta, sigma in zip(found.facts.heads, found.theta, found.sigma, strict=True):
        way = one[head].mean(0) - two[head].mean(0)
        assert_close(theta.double(), way / way.norm(), atol=1e-5, rtol=1e-4)
        spread = (torch.cat((one[head], two[head])) @ (way / way.norm())).std(correction=0)
        assert_close(sigma.double(), spread, atol=1e-5, rtol=1e-4)
    assert list(found.facts.accuracy) == sorted(found.facts.accuracy, reverse=True)


def test_heads_tell_kinds_apart_only_where_there_are_two() -> None:
    model = opened("llama")
    every = len(model.heads)
    kinds = OutputDirections.train(model, sounding(0, 40), sounding(1, 40), count=every)
    same = sounding(0, 80)
    none = OutputDirections.train(model, same[::2], same[1::2], count=every)
    assert kinds.facts.accuracy[0] > 0.85
    assert 0.3 < float(np.mean(none.facts.accuracy)) < 0.7


def test_too_few_prompts_of_a_kind_are_refused() -> None:
    model = opened("llama")
    with pytest.raises(HeadscopeError, match="prompts of each kind"):
        OutputDirections.train(model, sounding(0, 3), sounding(1))
    with pytest.raises(HeadscopeError, match="heads"):
        OutputDirections.train(model, sounding(0), sounding(1), count=99)


def test_heads_without_a_direction_are_refused() -> None:
    model = opened("llama")
    method = replace(focusing(model)[0], heads=["L0H0"])
    with pytest.raises(HeadscopeError, match="no direction for L0H0"), method(model):
        pass


def test_random_directions_are_controls_of_equal_length() -> None:
    (focus, _), (outputs, _) = trained(opened("llama"))
    assert isinstance(focus, Directions)
    assert isinstance(outputs, OutputDirections)
    assert_close(focus.random(1).q.norm(dim=1), focus.q.norm(dim=1))
    assert_close(outputs.random(1).theta.norm(dim=1), outputs.theta.norm(dim=1))
    assert torch.equal(outputs.random(1).sigma, outputs.sigma)
    assert torch.equal(focus.random(1).q, focus.random(1).q)
    assert not torch.equal(focus.random(1).q, focus.random(2).q)
    for drawn, first in ((focus.random(1).q, focus.q), (outputs.random(1).theta, outputs.theta)):
        assert float(torch.nn.functional.cosine_similarity(drawn, first).abs().max()) < 0.99


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.0, 5.0])
def test_a_concept_is_scaled_in_the_logits_of_its_words(factor: float) -> None:
    """What a head writes into its words' logits is multiplied; no other part of z moves."""
    model, ids = opened("llama"), [5, 37, 40]
    concept = Concept.of(model, ["w5", "w37", 40])
    assert list(concept.tokens) == ids
    before, after = said(model, RescaleConcept(["L1H2", "L1H4"], concept, factor), 1)
    words = model.hf.get_output_embeddings().weight[ids].double()
    out = model.hf.model.layers[1].self_attn.o_proj.weight.double().chunk(model.n_heads, 1)
    for head in range(model.n_heads):
        writes = (words @ out[head]).T
        scaled = factor if head in (2, 4) else 1.0
        assert_close(after[head] @ writes, scaled * (before[head] @ writes), atol=1e-5, rtol=1e-4)
        moved = after[head] - before[head]
        rest = torch.linalg.qr(writes, mode="complete").Q[:, len(ids) :]
        assert float((moved @ rest).abs().max()) < 1e-5


def test_whole_outputs_are_scaled_where_asked_for() -> None:
    model, heads = opened("llama"), ["L1H2", "L2H4"]
    with RescaleConcept(heads, Concept.of(model, ["w5"]), 0.25, whole=True)(model):
        found = model(TOKENS)
    with ScaleHeads(heads, 0.25)(model):
        assert_close(found, model(TOKENS), atol=1e-5, rtol=1e-4)


def test_words_that_are_no_single_token_are_refused() -> None:
    model = opened("llama")
    for words, message in (
        (["w5 w6"], "w5 w6"),
        ([97], "0 to 96"),
        ([], "1 to 8 words"),
        (list(range(3, 12)), "1 to 8 words"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            Concept.of(model, words)


def test_a_concept_behind_a_gate_is_refused() -> None:
    hf = tiny_model("llama")
    for block in hf.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,))
    model = headscope.load(hf, tiny_tokenizer())
    with pytest.raises(HeadscopeError, match="LlamaForCausalLM gates or normalises"):
        Concept.of(model, ["w5"])


def test_scaling_heads_by_0_is_zero_ablation_and_by_1_nothing() -> None:
    model, heads = opened("llama"), ["L0H1", "L2H5"]
    plain = model(TOKENS)
    with ScaleHeads(heads, 1.0)(model):
        assert torch.equal(model(TOKENS), plain)
    with Ablate(heads)(model):
        ablated = model(TOKENS)
    with ScaleHeads(heads, 0.0)(model):
        assert torch.equal(model(TOKENS), ablated)
    for factor in (float("nan"), float("inf")):
        with pytest.raises(HeadscopeError, match="finite factor"):
            ScaleHeads(heads, factor)


def test_anchors_take_the_top_share_of_a_map() -> None:
    model = opened("llama")
    prompts = Repeated(samples=6, block=20, times=2)
    head_map = headscope.scan(model, ["induction"], prompts=prompts)
    means = head_map["induction"].mean()
    order = sorted(head_map.heads(), key=lambda h: -means[h])
    assert list(InstructionAnchors.top(head_map, "induction", 0.12)) == order[:2]
    assert list(InstructionAnchors.top(head_map, "induction", 0.001)) == order[:1]
    assert set(InstructionAnchors.top(head_map, "induction", 1.0)) == set(order)
    made = InstructionAnchors.of(head_map, "induction", (8, 12), (2, 5), share=0.12, factor=3.0)
    assert made == InstructionAnchors((8, 12), (2, 5), heads=order[:2], factor=3.0)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(HeadscopeError, match="share"):
            InstructionAnchors.top(head_map, "induction", share)


def test_anchors_of_named_spans_and_what_they_refuse() -> None:
    model = opened("llama")
    spans = {"order": (12, 16), "source_0": (2, 4), "source_1": (6, 9)}
    prompt = Prompt(tuple(TOKENS[0].tolist()), spans)
    method, _ = InstructionAnchors("order", "source").prepared(model, prompt)
    with method(model):
        found = model(TOKENS)
    with InstructionAnchors((12, 16), [(2, 4), (6, 9)])(model):
        assert torch.equal(model(TOKENS), found)
    neutral = InstructionAnchors((12, 16), (2, 4), action="amplify", factor=1.0)
    with neutral(model):
        assert_close(model(TOKENS), opened("llama")(TOKENS), atol=1e-4, rtol=1e-4)
    for options, message in (
        ({"action": "amplify", "factor": 0.0}, "factor above 0"),
        ({"keys": (3, 3)}, "holds no token"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            InstructionAnchors(**{"queries": (12, 16), "keys": (2, 4), **options})


def test_iti_refuses_what_its_directions_do_not_have() -> None:
    (method, *_) = itis(opened("llama"))
    for options, message in (
        ({"count": 9}, "use a count from 0 to"),
        ({"alpha": float("inf")}, "finite alpha"),
        ({"count": -1}, "use a count from 0 to"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            ITI(**{"directions": method.directions, **options})
