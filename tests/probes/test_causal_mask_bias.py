"""What the pass without rotation is made of."""

import torch

import headscope
from headscope.probes.causal_mask_bias import CausalMaskBias
from headscope.prompts import Prompt, Repeated


def test_only_tokens_before_the_first_repeat_are_said(llama: headscope.HeadModel) -> None:
    family, probe = Repeated(samples=1, block=20, times=3), CausalMaskBias(turns=2)
    whole = family.prompt(0, llama.tokenizer)
    once = probe.read(llama, Prompt(whole.token_ids[:21]))
    for name, values in probe.read(llama, whole).items():
        torch.testing.assert_close(values, once[name])


def test_rotation_comes_back_after_the_pass(llama: headscope.HeadModel) -> None:
    ids = list(range(3, 40))
    before = llama(ids)
    CausalMaskBias().read(llama, Prompt(tuple(ids)))
    torch.testing.assert_close(llama(ids), before)


def test_a_rising_pattern_scores_high(llama: headscope.HeadModel) -> None:
    """Logits that gain 3 nats from the oldest key to the newest are found as such."""
    probe, prompt = CausalMaskBias(turns=1), Prompt(tuple(range(3, 43)))
    n = len(prompt)

    def rising(attention, attend):
        flat = attention.with_q(torch.zeros_like(attention.q))
        for key in range(1, n):
            flat = flat.with_bias([key], 0.1 * key)
        return attend(flat)

    with llama.entered(rising):
        found = probe.read(llama, prompt)
    ones = torch.ones_like(found["causal_mask_bias"])
    torch.testing.assert_close(found["causal_mask_bias"], ones)
    # Row i has keys 1 ... i - 1: a step of 0.1 a key is 0.1 (i - 1) from end to end.
    rise = sum(0.1 * (i - 1) for i in range(n // 2, n)) / (n - n // 2)
    torch.testing.assert_close(found["causal_mask_bias_rise"], rise * ones)
    curve = found["causal_mask_bias_profile"]
    assert bool((curve.diff(dim=-1) > 0).all())
