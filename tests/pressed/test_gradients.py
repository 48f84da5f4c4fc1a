"""Pressed methods that differentiate through the seam."""

import dataclasses

import pytest
import torch
from pressed.methods import _Direction, _DuoGate
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close

import headscope
from headscope.engines import Attended
from headscope.model import HeadModel

TOKENS = torch.randint(3, 97, (1, 21), generator=torch.Generator().manual_seed(5))


def gold_mass(model: HeadModel, directions: Tensor) -> Tensor:
    """Mean attention of the last rows on some keys, summed over layers."""
    found: list[Tensor] = []

    def look(attended: Attended) -> None:
        found.append(attended.attention.mass([4, 5, 6], range(15, 21)).mean())

    with _Direction(directions)(model), model.observed(look):
        model(TOKENS)
    return torch.stack(found).sum()


def test_a_query_direction_trains(llama: HeadModel, grad: None) -> None:
    shape = (llama.n_layers, llama.n_heads, llama.d_head)
    directions = (0.1 * torch.randn(shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(gold_mass(llama, directions), directions)
    step = torch.randn(shape)
    with torch.no_grad():
        up, down = (gold_mass(llama, directions + s * 1e-2 * step) for s in (1, -1))
    assert_close((gradient * step).sum(), (up - down) / 2e-2, atol=2e-3, rtol=2e-2)
    assert all(parameter.grad is None for parameter in llama.hf.parameters())
    with torch.no_grad():
        better = gold_mass(llama, directions + 0.1 * gradient / gradient.norm())
        assert better - gold_mass(llama, directions) > 0.05 * gradient.norm()


def test_duo_gate_equals_two_dense_branches(llama: HeadModel, grad: None) -> None:
    """Values and gradients, against plain torch hooks on a second copy of the model."""
    alpha = torch.rand(llama.n_layers, llama.n_kv_heads).requires_grad_()
    both = TOKENS.repeat(2, 1)
    with _DuoGate(alpha)(llama):
        student = llama(both)
    n = TOKENS.shape[1]
    index = torch.arange(n)
    causal = index[:, None] >= index
    band = causal & ((index[None] < 1) | (index[:, None] - index < 3))
    other = torch.rand_like(alpha).requires_grad_()
    with torch.no_grad():
        other.copy_(alpha)
    want = hooked_duo(other, both, causal, band)
    assert_close(student, want, atol=1e-4, rtol=1e-4)
    for logits, gate in ((student, alpha), (want, other)):
        (logits[1] - logits[0].detach()).square().mean().backward()
        assert gate.grad is not None
    assert_close(alpha.grad, other.grad, atol=1e-4, rtol=1e-3)
    assert alpha.grad.abs().max() > 1e-3


def hooked_duo(alpha: Tensor, tokens: Tensor, causal: Tensor, band: Tensor) -> Tensor:
    hf = tiny_model("llama").requires_grad_(False)
    hf.set_attn_implementation("eager")
    cfg = hf.config
    for layer, block in enumerate(hf.model.layers):
        attention = block.self_attn

        def forward(hidden_states, position_embeddings, layer=layer, a=attention, **_):
            from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

            def heads(x: Tensor) -> Tensor:
                return x.unflatten(-1, (-1, cfg.head_dim)).transpose(1, 2)

            q, k, v = (heads(p(hidden_states)) for p in (a.q_proj, a.k_proj, a.v_proj))
            q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
            k, v = (x.repeat_interleave(a.num_key_value_groups, 1) for x in (k, v))
            logits = q @ k.transpose(-1, -2) * a.scaling
            full, stream = (
                logits.masked_fill(~mask, -torch.inf).softmax(-1) @ v for mask in (causal, band)
            )
            gate = alpha[layer].repeat_interleave(a.num_key_value_groups)[:, None, None]
            mixed = gate * full[:1].detach() + (1 - gate) * stream[1:]
            z = torch.cat((full[:1], mixed)).transpose(1, 2).flatten(2)
            return a.o_proj(z), None

        attention.forward = forward
    return hf(tokens).logits


def test_moa_influence_by_tiles_equals_the_dense_gradient(grad: None) -> None:
    """MoA (arXiv 2406.14909): E = |-A (G - rowsum(G A)) / (1 - A)|, G = dL/dA = dL/dz v^T."""
    llama = headscope.load(tiny_model("llama").double(), tiny_tokenizer())
    seen: list[Attended] = []

    def keep(attended: Attended) -> None:
        attended.z.requires_grad_() if attended.z.is_leaf else attended.z.retain_grad()
        seen.append(attended)

    with llama.observed(keep):
        logits = llama(TOKENS)
    logits[0, :-1].log_softmax(-1).gather(1, TOKENS[0, 1:, None]).sum().backward()
    hf = tiny_model("llama").double()
    hf.set_attn_implementation("eager")
    patterns: list[Tensor] = []
    for block in hf.model.layers:
        block.self_attn.register_forward_hook(
            lambda _, args, out: patterns.append(out[1]) or out[1].retain_grad()
        )
    reference = hf(TOKENS).logits
    reference[0, :-1].log_softmax(-1).gather(1, TOKENS[0, 1:, None]).sum().backward()
    for attended, pattern in zip(seen, patterns, strict=True):
        a, dz = detached(attended), attended.z.grad
        want = influence(pattern, pattern.grad)
        for tile in a.tiles():
            v = a.v[:, :, tile.keys].repeat_interleave(a.group, 1)
            g = dz[:, :, tile.queries] @ v.transpose(-1, -2)
            rows = want[:, :, tile.queries][..., tile.keys]
            # transformers takes this softmax in float32, where 1 - A runs out of digits.
            sound = tile.probabilities < 0.999
            found = influence(tile.probabilities, g)
            assert_close(found[sound], rows[sound], atol=1e-4, rtol=1e-3)


def detached(attended: Attended):
    a = attended.attention
    names = ("q", "k", "v")
    return dataclasses.replace(a, **{name: getattr(a, name).detach() for name in names})


def influence(pattern: Tensor, gradient: Tensor) -> Tensor:
    mean = (gradient * pattern).sum(-1, keepdim=True)
    return (pattern * (gradient - mean) / (1 - pattern + 1e-6)).abs()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_through_the_same_stack(grad: None, reentrant: bool) -> None:
    """The scope is closed when the backward pass runs; gradients must not notice."""
    model = headscope.load(tiny_model("llama"), tiny_tokenizer())
    gradients = []
    for checkpointing in (False, True):
        directions = torch.full((3, 6, 8), 0.3).requires_grad_()
        if checkpointing:
            enable_checkpointing(model, reentrant)
            model.hf.train()
        embeds = model.embed[TOKENS].detach().requires_grad_()
        with _Direction(directions)(model):
            loss = model.hf(inputs_embeds=embeds, use_cache=False).logits.square().mean()
        loss.backward()
        gradients.append(directions.grad)
    assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
    assert gradients[0].abs().max() > 1e-4
    del loss
    assert model.hf.config._attn_implementation == "sdpa"


def enable_checkpointing(model: HeadModel, reentrant: bool) -> None:
    name = "activation_checkpointing_enable"  # until transformers 5.20 gradient_checkpointing_...
    enable = getattr(model.hf, name, None) or model.hf.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
