"""Ablations against plain hooks; validation against what it must find and must not."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tiny import reference_model
from torch import Tensor, nn
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.evals.controls import layer_matched_sets, uniform_sets
from headscope.evals.statistics import empirical_p, paired_bootstrap, wilson
from headscope.heads import label, parse_head, parse_heads
from headscope.interventions.ablate import Ablate, Reference
from headscope.model import HeadModel
from headscope.prompts import Repeated
from headscope.stack import Attend

TOKENS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(8))
HEADS = ((0, 1), (1, 0), (1, 4), (2, 5))
MODES = ("zero", "mean", "uniform", "resample")


def reference(model: HeadModel) -> Reference:
    prompts = Repeated(samples=2, block=20, times=2).prompts(model.tokenizer)
    return Reference.measure(model, prompts, size=16)


def ablation(model: HeadModel, mode: Any, **options: Any) -> Ablate:
    return Ablate(HEADS, mode, reference=reference(model), **options)


@pytest.mark.parametrize("mode", MODES)
def test_no_heads_is_a_bit_exact_no_op(architecture: str, mode: Any) -> None:
    model = opened(architecture)
    with model.entered(lambda a, attend: attend(a)):
        plain = model(TOKENS)
    with Ablate((), mode, reference=reference(model))(model):
        assert torch.equal(model(TOKENS), plain)


def hooked(name: str, mode: str, ref: Reference) -> Tensor:
    """Plain hooks on the output projections of a Llama."""
    hf = reference_model(name)
    d, n = 8, TOKENS.shape[1]
    for layer, block in enumerate(hf.model.layers):
        heads = [h for at, h in HEADS if at == layer]

        def edit(module: nn.Module, args: tuple[Tensor], layer=layer, heads=heads):
            z = args[0].unflatten(-1, (-1, d)).clone()
            for head in heads:
                if mode == "zero":
                    z[:, :, head] = 0
                elif mode == "mean":
                    z[:, :, head] = ref.mean[layer, head]
                else:
                    drawn = (torch.arange(n) * 2654435761) % 16
                    z[:, :, head] = ref.bank[layer, drawn, head]
            return (z.flatten(-2),)

        block.self_attn.o_proj.register_forward_pre_hook(edit)
    return hf(TOKENS).logits


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_output_ablations_equal_hooks(llama: HeadModel, mode: Any) -> None:
    method = ablation(llama, mode)
    with method(llama):
        found = llama(TOKENS)
    assert_close(found, hooked("llama", mode, method.reference), atol=1e-4, rtol=1e-4)


def test_reference_means_are_means_over_tokens(llama: HeadModel) -> None:
    prompts = Repeated(samples=2, block=20, times=2).prompts(llama.tokenizer)
    seen: list[Tensor] = []
    with llama.observed(lambda a: a.attention.layer == 1 and seen.append(a.z[0])):
        for prompt in prompts:
            llama(list(prompt.token_ids))
    ref = reference(llama)
    assert_close(ref.mean[1], torch.cat(seen, 1).mean(1))
    rows = torch.cat(seen, 1).transpose(0, 1)
    for row in ref.bank[1]:
        assert (rows == row).all(-1).all(-1).any()


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_oss", "gpt2"])
def test_uniform_attention_is_even_over_what_is_visible(name: str) -> None:
    model = opened(name)
    seen: dict[int, Attention] = {}
    with (
        Ablate(HEADS, "uniform")(model),
        model.observed(lambda a: seen.update({a.attention.layer: a.attention})),
    ):
        model(TOKENS)
    for layer, head in HEADS:
        a = seen[layer]
        visible = a.visible()[:, 0].float()
        share = visible.sum(-1, keepdim=True)
        if a.sink_logits is not None:
            share = share + a.sink_logits[head].exp()
        assert_close(a.dense()[:, head], visible / share, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["all", "prefill", "decode", "answer"])
def test_one_pass_equals_prefill_and_decode(architecture: str, mode: Any, part: Any) -> None:
    model = opened(architecture)
    n, prompt = TOKENS.shape[1], 13
    with ablation(model, mode, part=part)(model):
        whole = model(TOKENS, prompt_length=prompt)
        cache = model.new_cache()
        parts = [model(TOKENS[:, :prompt], cache=cache, prompt_length=prompt)]
        parts += [
            model(TOKENS[:, [t]], cache=cache, prompt_length=prompt) for t in range(prompt, n)
        ]
    assert_close(torch.cat(parts, 1), whole, atol=3e-4, rtol=1e-4)
    rows = {"all": 0, "prefill": 0, "decode": prompt, "answer": prompt - 1}[part]
    changed = (whole - model(TOKENS)).abs().amax((0, 2)) > 1e-4
    assert not changed[:rows].any()
    assert changed[rows:].any()


@pytest.mark.parametrize("mode", MODES)
def test_a_padded_batch_equals_one_by_one(architecture: str, mode: Any) -> None:
    model = opened(architecture)
    ids, mask = TOKENS.clone(), torch.ones_like(TOKENS)
    mask[0, :6] = 0
    with ablation(model, mode)(model):
        together = model(ids, attention_mask=mask)
        alone = model(ids[:1, 6:])
    assert_close(together[:1, 6:], alone, atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_the_same_on_every_backend(architecture: str, mode: Any, backend: str) -> None:
    found = []
    for name in ("hf", backend):
        model = opened(architecture, name)
        with ablation(model, mode)(model):
            found.append(model(TOKENS))
    assert_close(found[0], found[1], atol=3e-4, rtol=1e-4)


def test_generation_ablates_the_answer_alone(llama: HeadModel) -> None:
    method = Ablate(HEADS, "zero", "answer")
    with method(llama):
        tokens = llama.generate(TOKENS, max_new_tokens=6)
    ids = torch.cat((TOKENS, tokens), 1)
    with method(llama):
        logits = llama(ids[:, :-1], prompt_length=20, last=6)
    assert torch.equal(logits.argmax(-1), tokens)
    with method(llama), pytest.raises(HeadscopeError, match="where it starts"):
        llama(TOKENS)


def test_scopes_nest_and_close(llama: HeadModel) -> None:
    plain = llama(TOKENS)
    with Ablate([(0, 1)])(llama), Ablate(["L2H5"])(llama):
        both = llama(TOKENS)
    with Ablate([(0, 1), (2, 5)])(llama):
        assert_close(llama(TOKENS), both)
    assert torch.equal(llama(TOKENS), plain)


def test_heads_that_do_not_exist_are_refused(llama: HeadModel) -> None:
    for heads in ([(3, 0)], [(0, 6)], [(-1, 0)], ["L9H9"]):
        with pytest.raises(HeadscopeError, match="has no head"), Ablate(heads)(llama):
            pass
    with pytest.raises(HeadscopeError, match="names no head"):
        Ablate(["H3"])
    with pytest.raises(HeadscopeError, match="needs reference"):
        Ablate([(0, 0)], "mean")
    other = reference(opened("llama_mqa"))
    cut = Reference(other.layers[:2], other.mean[:2], other.bank[:2])
    with (
        pytest.raises(HeadscopeError, match="2 layers"),
        Ablate([(0, 0)], "mean", reference=cut)(llama),
    ):
        pass
    with pytest.raises(HeadscopeError, match="at least one reference"):
        Reference.measure(llama, [])


@given(st.integers(0, 200), st.integers(0, 200))
def test_head_names_round_trip(layer: int, head: int) -> None:
    assert parse_head(label((layer, head))) == (layer, head)
    assert parse_heads([f"{layer}-{head}", (layer, head)]) == ((layer, head),)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40))
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    successes = min(successes, n)
    want = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((want.low, want.high))


def test_bootstrap_covers_and_empirical_p_counts() -> None:
    rng = np.random.default_rng(0)
    inside = [
        low <= 1 <= high
        for low, high in (paired_bootstrap(rng.normal(1, 2, 50), seed) for seed in range(100))
    ]
    assert 0.87 <= np.mean(inside) <= 1
    assert empirical_p(3.0, np.array([1.0, 3.0, 4.0])) == pytest.approx(3 / 4)
    assert empirical_p(9.0, np.zeros(19)) == pytest.approx(0.05)


def test_controls_match_and_hold_no_tested_head() -> None:
    heads = [(layer, head) for layer in range(6) for head in range(8)]
    tested = ((1, 2), (1, 3), (4, 0))
    for draw in (uniform_sets, layer_matched_sets):
        sets = draw(heads, tested, 19, 0)
        assert len(set(sets)) == 19
        assert all(len(s) == 3 and not set(s) & set(tested) for s in sets)
        assert sets == draw(heads, tested, 19, 0) != draw(heads, tested, 19, 1)
    assert all(sorted(layer for layer, _ in s) == [1, 1, 4] for s in sets)
    assert layer_matched_sets(heads, [(0, h) for h in range(5)], 2) == []
    assert len(layer_matched_sets(heads, [(0, h) for h in range(2)], 20)) == 15  # all there are
    assert len(set(layer_matched_sets(heads, [(3, 1)], 19))) == 7
    assert layer_matched_sets(heads, tested, 0) == []


MISSPELT = """
from headscope.errors import HeadscopeError
from headscope.interventions.ablate import Ablate
for wrong in (dict(mode="Mean"), dict(part="anwser"), dict(heads=[3])):
    try:
        Ablate(**{"heads": ["L0H1"]} | wrong)
    except HeadscopeError as error:
        print(error)
"""


def test_a_misspelt_ablation_is_refused() -> None:
    """In a process of its own: here the types would be refused first."""
    done = subprocess.run(
        [sys.executable, "-c", MISSPELT], capture_output=True, text=True, check=True
    )
    mode, part, heads = done.stdout.splitlines()
    assert "no mode 'Mean'" in mode
    assert "no part 'anwser'" in part
    assert "names like 'L17H3'" in heads
    assert Ablate("L0H1").heads == ((0, 1),)


def test_attended_refuses_another_shape(llama: HeadModel) -> None:
    def cut(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        return attended.with_z(attended.z[:, :2])

    with llama.entered(cut), pytest.raises(HeadscopeError, match="cannot take its place"):
        llama(TOKENS)
