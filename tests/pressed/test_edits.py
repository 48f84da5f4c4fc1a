"""Pressed methods that edit logits, queries and keys, against dense float64 edits."""

from collections.abc import Callable

import oracle
import pytest
import torch
from conftest import opened
from pressed.methods import _Act, _NoRope, _Pasta, _StreamingLLM
from tiny import tiny_model
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.stack import Attend

Edit = Callable[[Tensor], Tensor]  # a dense pattern [batch, head, query, key] -> another one
TOKENS = torch.randint(3, 97, (2, 23), generator=torch.Generator().manual_seed(3))


def dense_logits(model: HeadModel, edit: Edit) -> Tensor:
    """The model's logits with every layer's pattern written out and edited."""

    def attend(attention: Attention, _: Attend) -> Attended:
        pattern = edit(oracle.dense(attention).pattern)
        v = attention.v.double().repeat_interleave(attention.group, 1)
        return Attended((pattern @ v).to(attention.v.dtype), attention)

    with model.entered(attend):
        return model(TOKENS)


def act(pattern: Tensor, beta: float = 0.4, threshold: float = 0.1) -> Tensor:
    n = pattern.shape[-1]
    means = pattern.sum(2) / torch.arange(n, 0, -1)
    out = pattern.clone()
    for b, h in torch.cartesian_prod(torch.arange(len(pattern)), torch.arange(pattern.shape[1])):
        sinks = (means[b, h] > threshold).nonzero().flatten()[1:]
        rows = pattern[b, h].clone()
        freed = (1 - beta) * rows[:, sinks].sum(1, keepdim=True)
        others = rows.clone()
        others[:, sinks] = 0
        rows[:, sinks] *= beta
        out[b, h] = rows + freed * others / others.sum(1, keepdim=True)
    return out


def pasta(pattern: Tensor, alpha: float = 0.01) -> Tensor:
    scaled = pattern * alpha
    scaled[..., 3:6] = pattern[..., 3:6]
    return scaled / scaled.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_act_equals_the_dense_edit(name: str) -> None:
    model = opened(name)
    with _Act()(model):
        found = model(TOKENS)
    assert_close(found, dense_logits(model, act), atol=2e-4, rtol=1e-4)
    assert (found - model(TOKENS)).abs().max() > 1e-2


def test_pasta_act_and_a_probe_compose_in_both_orders(llama: HeadModel) -> None:
    for outer, inner, edit in (
        (_Pasta(), _Act(), lambda p: act(pasta(p))),
        (_Act(), _Pasta(), lambda p: pasta(act(p))),
    ):
        seen: list[Tensor] = []
        with (
            outer(llama),
            inner(llama),
            llama.observed(lambda a, seen=seen: seen.append(a.attention.mass([3, 4]))),
        ):
            found = llama(TOKENS)
        assert_close(found, dense_logits(llama, edit), atol=2e-4, rtol=1e-4)
        first = edit(first_pattern(llama))[..., [3, 4]].sum(-1)
        assert_close(seen[0].double(), first, atol=1e-5, rtol=1e-4)


def first_pattern(model: HeadModel) -> Tensor:
    kept: list[Attention] = []
    with model.observed(lambda a: kept.append(a.attention)):
        model(TOKENS)
    return oracle.dense(kept[0]).pattern


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt_oss", "gpt_neox"])
def test_rope_removed_equals_a_model_without_it(name: str) -> None:
    model, hf = opened(name), tiny_model(name)
    for module in hf.modules():
        if "Rotary" in type(module).__name__:
            forward = module.forward

            def still(*args, forward=forward, **kwargs):
                cos, sin = forward(*args, **kwargs)
                return torch.ones_like(cos), torch.zeros_like(sin)

            module.forward = still
    with _NoRope()(model):
        found = model(TOKENS)
    assert_close(found, hf(TOKENS).logits, atol=1e-4, rtol=1e-4)


def test_streaming_llm_equals_a_rotating_cache(llama: HeadModel) -> None:
    """The oracle keeps a small cache per step and encodes it anew by place."""
    sink, window = 2, 6

    def by_hand(attention: Attention, _: Attend) -> Attended:
        rope, at = attention.rope, attention.query_positions
        q, k = rope.unrotate(attention.q, at), rope.unrotate(attention.k, attention.key_positions)
        z = torch.zeros_like(attention.q)
        for t in range(attention.n_queries):
            held = [j for j in range(t + 1) if j < sink or t - j < window]
            place = torch.arange(len(held)).expand(len(q), -1)
            keys = rope.rotate(k[:, :, held], place).repeat_interleave(attention.group, 1)
            query = rope.rotate(q[:, :, [t]], place[:, -1:])
            weights = ((query @ keys.transpose(-1, -2)) * attention.scale).softmax(-1)
            values = attention.v[:, :, held].repeat_interleave(attention.group, 1)
            z[:, :, [t]] = weights @ values
        return Attended(z, attention)

    with _StreamingLLM(sink, window)(llama):
        found = llama(TOKENS)
    with llama.entered(by_hand):
        want = llama(TOKENS)
    assert_close(found, want, atol=1e-4, rtol=1e-4)
    assert (found - llama(TOKENS)).abs().max() > 1e-2


def test_streaming_llm_decodes_as_it_prefills(llama: HeadModel) -> None:
    with _StreamingLLM()(llama):
        whole = llama(TOKENS)
        cache = llama.new_cache()
        parts = [llama(TOKENS[:, :11], cache=cache)]
        parts += [llama(TOKENS[:, [t]], cache=cache) for t in range(11, TOKENS.shape[1])]
    assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
