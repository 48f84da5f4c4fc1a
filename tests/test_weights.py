"""Per-head weights, found by tracing, rebuild what the layer computes."""

import pytest
import torch
from conftest import opened
from tiny import reference_model, tiny_model, tiny_tokenizer
from torch.testing import assert_close

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError

TOKENS = torch.randint(3, 97, (1, 9), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("backend", ["hf", "lens"])
def test_weights_rebuild_q_k_v_and_the_output(architecture: str, backend: str) -> None:
    model = opened(architecture, backend)
    seen: list[Attended] = []
    with model.observed(seen.append):
        model(TOKENS)
    for attended in seen:
        a = attended.attention
        w = model.weights(a.layer)
        assert w.W_Q.shape == (model.n_heads, model.d_model, model.d_head)
        assert w.W_O.shape == (model.n_heads, model.d_head, model.d_model)
        assert w.W_K.shape[0] == w.W_V.shape[0] == model.n_kv_heads

        def project(weight, bias, x=a.hidden[0]):
            y = torch.einsum("tm,hmd->htd", x, weight)
            return y if bias is None else y + bias[:, None]

        assert_close(project(w.W_V, w.b_V), a.v[0], atol=1e-4, rtol=1e-4)
        assert w.qk_norm == (architecture in ("qwen3", "gemma3"))
        assert not w.output_gate
        if not w.qk_norm:
            q, k = a.q, a.k
            if a.rope is not None:
                q = a.rope.unrotate(q, a.query_positions)
                k = a.rope.unrotate(k, a.key_positions)
            assert_close(project(w.W_Q, w.b_Q), q[0], atol=1e-4, rtol=1e-4)
            assert_close(project(w.W_K, w.b_K), k[0], atol=1e-4, rtol=1e-4)


def test_heads_outputs_sum_to_the_layer_s(architecture: str) -> None:
    model, hf = opened(architecture), reference_model(architecture)
    module = dict(hf.named_modules())[
        next(n for n, m in model.hf.named_modules() if m is model.backend.sites[0].module)
    ]
    outputs: list[torch.Tensor] = []
    module.register_forward_hook(lambda _, args, out: outputs.append(out[0]))
    hf(TOKENS)
    seen: list[Attended] = []
    with model.observed(seen.append):
        model(TOKENS)
    w = model.weights(0)
    y = torch.einsum("htd,hdm->tm", seen[0].z[0], w.W_O)
    assert_close(y if w.b_O is None else y + w.b_O, outputs[0][0], atol=1e-4, rtol=1e-4)


def test_unembedding_reads_the_final_norm(architecture: str) -> None:
    model = opened(architecture)
    kept: list[torch.Tensor] = []
    handle = model.final_norm.register_forward_hook(lambda _, args, out: kept.append(out))
    logits = model(TOKENS)
    handle.remove()
    raw = kept[0] @ model.unembed
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    assert_close(raw if cap is None else cap * torch.tanh(raw / cap), logits, atol=1e-4, rtol=1e-4)
    assert model.embed.shape == (model.vocab_size, model.d_model)


def test_views_share_the_model_s_memory() -> None:
    model = opened("llama")
    weight = model.hf.model.layers[0].self_attn.q_proj.weight
    assert model.weights(0).W_Q.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_heads_that_are_alike_or_empty_are_found_where_they_stand(name: str) -> None:
    hf = tiny_model(name)
    layer = {"gpt2": "transformer.h.1", "llama": "model.layers.1", "opt": "model.decoder.layers.1"}
    at = hf.get_submodule(layer[name])
    for part in (0, 1, 2):
        if name == "gpt2":
            columns = at.attn.c_attn.weight[:, 48 * part :]
        else:
            columns = getattr(at.self_attn, f"{'qkv'[part]}_proj").weight.T
        columns[:, 8:16] = columns[:, :8]
    if name == "gpt2":
        at.attn.c_attn.weight[:, 16:24] = at.attn.c_attn.bias[16:24] = 0
    else:
        at.self_attn.q_proj.weight[16:24] = 0
    model = headscope.load(hf, tiny_tokenizer())
    seen: list[Attended] = []
    with model.observed(seen.append):
        model(TOKENS)
    a, w = seen[1].attention, model.weights(1)
    assert not w.qk_norm
    q, k = a.q, a.k
    if a.rope is not None:
        q = a.rope.unrotate(q, a.query_positions)
        k = a.rope.unrotate(k, a.key_positions)
    for own, bias, made in ((w.W_Q, w.b_Q, q), (w.W_K, w.b_K, k), (w.W_V, w.b_V, a.v)):
        y = torch.einsum("tm,hmd->htd", a.hidden[0], own)
        assert_close(y if bias is None else y + bias[:, None], made[0], atol=1e-4, rtol=1e-4)


def test_a_gate_in_front_of_the_output_is_reported() -> None:
    hf = tiny_model("llama")
    for block in hf.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,))
    model = headscope.load(hf, tiny_tokenizer())
    assert model.weights(1).output_gate
    with pytest.raises(HeadscopeError, match="gates or normalises"):
        model.weights(1).require_linear_output()
    with pytest.raises(HeadscopeError, match="no attention layer 9"):
        model.weights(9)
