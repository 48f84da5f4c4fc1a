"""Tiny random models of the architectures that headscope is held to, and a tokenizer for them."""

from collections.abc import Callable
from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCAB = 97
_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GQA = _SHAPE | {"num_key_value_heads": 2}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_GQA),
    "llama_mha": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=6),
    "llama_mqa": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=1, attention_bias=True),
    "qwen2": lambda: Qwen2Config(
        **_GQA, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "qwen3": lambda: Qwen3Config(**_GQA, head_dim=16),
    "mistral": lambda: MistralConfig(**_GQA, sliding_window=8),
    "gemma2": lambda: Gemma2Config(
        **_GQA, head_dim=16, sliding_window=8, query_pre_attn_scalar=16, attn_logit_softcapping=10.0
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_GQA, head_dim=16, sliding_window=8, query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gpt_oss": lambda: GptOssConfig(
        **_GQA, head_dim=16, sliding_window=8, num_local_experts=2, num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=48, n_layer=3, n_head=6, n_positions=128, bos_token_id=1,
        eos_token_id=2, scale_attn_by_inverse_layer_idx=True,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_SHAPE, rope_parameters={
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    }),
    "opt": lambda: OPTConfig(
        vocab_size=VOCAB, hidden_size=48, ffn_dim=64, num_hidden_layers=3, num_attention_heads=6,
        max_position_embeddings=128, word_embed_proj_dim=48, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    ),
}  # fmt: skip


def tiny_model(name: str) -> PreTrainedModel:
    """A fresh random model of one architecture; the same weights every time."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    for parameter in model.parameters():
        # The usual initialisation is so small that attention would be nearly uniform.
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.5)
    for module in model.modules():
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
            torch.nn.init.normal_(module.weight, mean=1.0, std=0.1)
    return model


def reference_model(name: str) -> PreTrainedModel:
    """The same on the model's own eager attention, which leaves out nothing."""
    model = tiny_model(name)
    model.set_attn_implementation("eager")
    return model


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, w0 to w96."""
    vocab = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2", unk_token="w0"
    )
