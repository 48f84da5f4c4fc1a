"""Four thousand tokens with a bounded cache: memory stands still, and logits are a full pass's."""

import copy
import gc
from typing import Any

import jaxtyping
import pytest
import torch
from einops import rearrange
from tiny import CONFIGS, tiny_tokenizer
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

import headscope
from headscope.head_cache import HeadCache
from headscope.interventions.sparse_attention import SparseAttention
from headscope.model import HeadModel
from headscope.patterns import Streaming
from headscope.sparsity import SparseProfile

N, PROMPT = 4000, 8
CHECKED = range(199, N, 200)  # positions whose logits are compared


def tiny_for_long_texts() -> HeadModel:
    config = CONFIGS["llama"]()
    config.num_hidden_layers, config.max_position_embeddings = 2, N
    hf = AutoModelForCausalLM.from_config(config).eval()
    for parameter in hf.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.5)
    return headscope.load(hf, tiny_tokenizer())


def in_float64(model: HeadModel, profile: SparseProfile, tokens: Tensor) -> Tensor:
    """Logits of a full pass in float64 that scores every pair and then masks."""

    def attend(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, _: None, scaling: float, **__: Any
    ) -> tuple[Tensor, None]:
        key, rules = torch.arange(k.shape[2]), profile.of_layer(module.layer_idx)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        z = []
        for query in key.split(500):
            seen = torch.stack([
                (key < rule.sink) | (query[:, None] - key < rule.window) for rule in rules
            ]) & (key <= query[:, None])  # fmt: skip
            logits = q[:, :, query] @ k.transpose(2, 3) * scaling
            z.append(logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v)
        return rearrange(torch.cat(z, 2), "b h q d -> b q h d"), None

    AttentionInterface.register("every_key_in_float64", attend)
    AttentionMaskInterface.register("every_key_in_float64", lambda *_, **__: None)
    hf = copy.deepcopy(model.hf).double()
    hf.set_attn_implementation("every_key_in_float64")
    return hf(tokens).logits


def alive() -> int:
    """Bytes of all numbers with a fraction that any tensor holds on to."""
    gc.collect()
    held = (x for x in gc.get_objects() if type(x) in (Tensor, nn.Parameter))
    stores = (x.untyped_storage() for x in held if x.is_floating_point())
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


def test_four_thousand_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shapes are checked in other tests; here that would take several times as long as the steps.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = tiny_for_long_texts()
    other = dict.fromkeys(("L1H0", "L1H1", "L1H2"), Streaming(0, 33))
    profile = SparseProfile.of(model, other, rest=Streaming(4, 60))
    generator = torch.Generator().manual_seed(9)
    tokens = torch.randint(3, 97, (1, PROMPT), generator=generator)
    said = torch.zeros(len(CHECKED), 97)
    cache, counted = HeadCache(profile), dict[int, tuple[int, int]]()
    with SparseAttention(profile)(model):
        new = tokens
        while tokens.shape[1] < N:
            logits = model(new, cache=cache, last=1)[0, -1]
            at = tokens.shape[1] - 1
            if at in CHECKED:
                said[CHECKED.index(at)] = logits
            if at + 1 in (1000, N - 1):
                counted[at + 1] = cache.kv_bytes(), alive()
            new = torch.multinomial(logits.softmax(-1), 1, generator=generator)[None]
            tokens = torch.cat((tokens, new), 1)
        said[-1] = model(new, cache=cache)[0, -1]
        whole = model(tokens)[0, CHECKED]
    assert counted[1000] == counted[N - 1]
    assert cache.kv_bytes() == profile.kv_bytes(N, 4) == profile.kv_bytes(100, 4)
    assert cache.get_seq_length() == N
    assert len(set(tokens[0, 1000:].tolist())) > 50  # no loop, which would repeat one check
    assert_close(said, whole, atol=2e-4, rtol=1e-4)
    assert_close(said, in_float64(model, profile, tokens)[0, CHECKED].float(), atol=2e-4, rtol=1e-4)
    assert (whole - model(tokens)[0, CHECKED]).abs().max() > 1e-2
