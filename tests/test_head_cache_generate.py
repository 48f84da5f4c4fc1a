"""`generate`, backends and other methods say with a `HeadCache` what they say with a full one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import opened
from head_caches import PADDED, TOKENS, WHOLE, read
from tiny import VOCAB, tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    FalconH1Config,
    Gemma3nTextConfig,
    Lfm2Config,
    PreTrainedConfig,
)

import headscope
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.head_cache import HeadCache
from headscope.interventions.attention_buckets import AttentionBuckets
from headscope.interventions.base import Intervention
from headscope.interventions.recycled_attention import RecycledAttention
from headscope.interventions.snap_kv import SnapKV
from headscope.interventions.sparse_attention import SparseAttention
from headscope.interventions.streaming_llm import StreamingLLM
from headscope.interventions.tidal_decode import TidalDecode
from headscope.model import HeadModel
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile, using_profile
from headscope.stack import Attend

RULES = {"L0H0": Full(), "L1H4": Streaming(0, 3), "L2H1": Streaming(4, 4)}


def profile_of(model: HeadModel) -> SparseProfile:
    return SparseProfile.of(model, RULES, rest=Streaming(1, 5))


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampled": {"do_sample": True, "num_return_sequences": 2},
    "beams_sampled": {"num_beams": 2, "do_sample": True},
    "chunked_prefill": {"prefill_chunk_size": 7},
}


@pytest.mark.parametrize("mask", [WHOLE, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        *(("llama", asked) for asked in OPTIONS),
        ("gemma2", "beams"),
        ("gpt_oss", "greedy"),
        ("gpt2", "greedy"),
    ],
)
def test_generate_says_what_it_says_with_every_key_held(
    mask: Tensor, name: str, asked: str
) -> None:
    model = opened(name)
    profile = profile_of(model)
    said = []
    with SparseAttention(profile)(model):
        for cache in (HeadCache(profile), DynamicCache()):
            torch.manual_seed(7)
            said.append(
                model.generate(
                    TOKENS[:, :40], attention_mask=mask[:, :40], max_new_tokens=12,
                    past_key_values=cache, **OPTIONS[asked],
                )
            )  # fmt: skip
    assert torch.equal(*said)


@pytest.mark.parametrize("backend", ["hf", "nnsight"])
def test_backends_that_hand_over_attention(backend: str) -> None:
    model, other = opened("llama"), opened("llama", backend)
    profile = profile_of(model)
    with SparseAttention(profile)(model):
        want = model.generate(TOKENS, max_new_tokens=6)
        logits = model(TOKENS)
    with SparseAttention(profile)(other):
        said = other.generate(TOKENS, max_new_tokens=6, past_key_values=HeadCache(profile))
        found = read(other, TOKENS, HeadCache(profile), (30, 1, 1, 5))
    assert torch.equal(said, want)
    assert_close(found, logits, atol=1e-4, rtol=1e-4)


def test_transformer_lens_is_refused() -> None:
    model = opened("llama", "lens")
    cache = HeadCache(profile_of(model))
    with pytest.raises(HeadscopeError, match="backend='hf'"):
        model.generate(TOKENS, max_new_tokens=2, past_key_values=cache)
    with pytest.raises(HeadscopeError, match="backend='hf'"):
        model(TOKENS, cache=cache)
    assert cache.get_seq_length() == 0


def test_a_model_with_a_profile_in_force_takes_one() -> None:
    hf = tiny_model("llama")
    profile = profile_of(opened("llama"))
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with using_profile(hf, profile):
        found = hf.generate(TOKENS, past_key_values=HeadCache(profile), **asked)
        want = hf.generate(TOKENS, **asked)
    assert torch.equal(found, want)


def test_a_model_that_headscope_does_not_run_is_refused() -> None:
    cache = HeadCache(profile_of(opened("llama")))
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with pytest.raises(HeadscopeError, match="never came to headscope's attention"):
        tiny_model("llama").generate(TOKENS, past_key_values=cache, **asked)


def test_a_second_turn_goes_on_from_the_first(llama: HeadModel) -> None:
    profile = profile_of(llama)
    turns = []
    with SparseAttention(profile)(llama):
        for cache in (HeadCache(profile), llama.new_cache()):
            first = llama.generate(TOKENS[:, :20], max_new_tokens=6, past_key_values=cache)
            text = torch.cat((TOKENS[:, :20], first, TOKENS[:, 20:30]), 1)
            turns.append(llama.generate(text, max_new_tokens=6, past_key_values=cache))
    assert torch.equal(*turns)


@pytest.mark.parametrize("draft", [{"prompt_lookup_num_tokens": 3}], ids=str)
def test_drafts_are_refused_before_they_are_made(llama: HeadModel, draft: dict[str, Any]) -> None:
    prompt = TOKENS[:1, :10].repeat(1, 3)
    with pytest.raises(HeadscopeError, match="cannot be taken back exactly"):
        llama.generate(prompt, past_key_values=HeadCache(profile_of(llama)), **draft)


def test_rows_are_repeated_and_chosen(llama: HeadModel) -> None:
    """What `generate` does to a cache's batch, by hand, rings not yet full and full."""
    profile = SparseProfile.of(llama, {"L0H0": Full()}, rest=Streaming(2, 26))
    rows = torch.tensor([3, 0, 5, 0])
    for prompt in (20, 40):
        cache = HeadCache(profile)
        with SparseAttention(profile)(llama):
            llama(TOKENS[:, :prompt], attention_mask=PADDED[:, :prompt], cache=cache)
            cache.reorder_cache(torch.tensor([1, 0, 2]))
            cache.batch_repeat_interleave(2)
            cache.batch_select_indices(rows)
            chosen = torch.tensor([1, 0, 2])[rows // 2]
            mask = PADDED[chosen]
            found = [
                llama(TOKENS[chosen, t : t + 1], attention_mask=mask[:, : t + 1], cache=cache)
                for t in range(prompt, 60)
            ]
            want = llama(TOKENS[chosen], attention_mask=mask)[:, prompt:]
        real = mask[:, prompt:].bool()
        assert_close(torch.cat(found, 1)[real], want[real], atol=1e-4, rtol=1e-4)


METHODS: list[Intervention] = [
    SnapKV(8, 3, 3),
    StreamingLLM(2, 9),
    TidalDecode(8, 0, (1,)),
    RecycledAttention(k=9, stride=3),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_methods_that_keep_state_by_token_keep_it(llama: HeadModel, method: Intervention) -> None:
    profile = profile_of(llama)

    def hide(attention: Attention, attend: Attend) -> Attended:
        """What a ring dropped is no key, as for whoever stands further in."""
        if attention.n_queries > 1:
            return attend(attention)
        query, key = attention.query_positions[:, :, None], attention.key_positions[:, None]
        rules = [Full() if n is None else Streaming(*n) for n in profile.held(attention.layer)]
        held = torch.cat([rule.mask(query, key) for rule in rules], dim=1)
        return attend(replace(attention, key_positions=key.where(held, -1), slots=None))

    def said(cache: Cache) -> Tensor:
        asked = {"prompt_length": PADDED[:, :45].sum(1)}
        return read(llama, TOKENS, cache, (45, *[1] * 15), PADDED, **asked)

    with SparseAttention(profile)(llama):
        plain = llama(TOKENS, attention_mask=PADDED)
        with method(llama):
            found = said(HeadCache(profile))
        with llama.entered(hide), method(llama):
            want = said(llama.new_cache())
    real = PADDED.bool()
    assert_close(found[real], want[real], atol=1e-4, rtol=1e-4)
    assert (found - plain)[real].abs().max() > 1e-3


def test_a_method_with_caches_of_its_own_is_refused(llama: HeadModel) -> None:
    cache = HeadCache(profile_of(llama))
    with AttentionBuckets()(llama), pytest.raises(HeadscopeError, match="a cache of its own"):
        llama(TOKENS, cache=cache)


# ---- models with other layers ------------------------------------------------------------------

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip


def model_of(config: PreTrainedConfig) -> HeadModel:
    hf = AutoModelForCausalLM.from_config(config).eval()
    for parameter in hf.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return headscope.load(hf, tiny_tokenizer())


def test_layers_without_attention_keep_what_is_theirs() -> None:
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    model = model_of(Lfm2Config(**SHAPE, num_hidden_layers=4, layer_types=kinds))
    profile = SparseProfile.of(model, {"L1H0": Full()}, rest=Streaming(1, 5))
    cache = HeadCache(profile)
    with SparseAttention(profile)(model):
        found = read(model, TOKENS, cache, (20, 1, 1, 1, 6))
        assert_close(found, model(TOKENS), atol=1e-4, rtol=1e-4)
    assert cache.kv_bytes() == profile.kv_bytes(60, 4, 3)


MORE: dict[str, PreTrainedConfig] = {
    "LinearAttentionAndFullAttentionLayer": FalconH1Config(
        **SHAPE, num_hidden_layers=2, mamba_d_ssm=48, mamba_n_heads=6, mamba_d_head=8,
        mamba_n_groups=1, mamba_d_state=8,
    ),
    "DummyLayer": Gemma3nTextConfig(
        **SHAPE, head_dim=8, vocab_size_per_layer_input=VOCAB, hidden_size_per_layer_input=8,
        num_hidden_layers=4, num_kv_shared_layers=2, sliding_window=8, laurel_rank=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kept", list(MORE))
def test_layers_that_keep_something_else_are_refused(kept: str) -> None:
    model = model_of(MORE[kept])
    cache = HeadCache(SparseProfile.of(model, {}, rest=Streaming(1, 5)))
    with pytest.raises(HeadscopeError, match=rf"gives it (a {kept}|none)\); use a DynamicCache"):
        model(TOKENS, cache=cache)
