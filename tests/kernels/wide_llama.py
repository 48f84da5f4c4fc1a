"""A small random model whose heads are as wide as the kernels take them."""

import torch
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

import headscope
from headscope.model import HeadModel


def wide_llama(dtype: torch.dtype, device: str = "cpu") -> HeadModel:
    """Two layers of 6 query heads on 3 KV heads, 64 wide; the same weights every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=48, intermediate_size=64, num_hidden_layers=2, head_dim=64,
        num_attention_heads=6, num_key_value_heads=3, max_position_embeddings=4096,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim > 1 else 0.5)
    return headscope.load(model.to(device, dtype), tiny_tokenizer())
