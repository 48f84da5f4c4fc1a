"""A scan with every probe that does not train, on four layers at 131 072 tokens, on a GPU.

    python benchmarks/scan_long.py --tokens 131072 --layers 4

The model has the shape of Llama-3-8B (32 query heads on 8 KV heads of 128), random weights and the
built-in model's tokenizer: what is measured is time and memory, not roles. Every family of prompts
has one prompt of as many tokens as asked, and what a probe cannot take at that length is named.
"""

import argparse
import time

import torch
from environment import describe
from stretching import stretched
from transformers import LlamaConfig, LlamaForCausalLM

import headscope
from headscope.catalog import probes
from headscope.errors import HeadscopeError
from headscope.kernels.choice import using


def opened(layers: int, tokens: int, small: bool) -> headscope.HeadModel:
    tokenizer = headscope.load("smollm2").tokenizer
    width, heads, kv_heads, device = (512, 8, 2, "cpu") if small else (4096, 32, 8, "cuda")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=7 * width // 2,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=tokens + 1024,  # the answer stands behind the prompt
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.float32 if small else torch.bfloat16).eval()
    return headscope.load(model, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=400, help="no probe begins after it")
    parser.add_argument("--impl", default="auto")
    parser.add_argument("--small", action="store_true", help="a small model on the CPU")
    asked = parser.parse_args()
    describe()
    if not asked.small:
        print(torch.cuda.get_device_name())
    model = opened(asked.layers, asked.tokens, asked.small)
    chosen = {name: kind for name, kind in probes().items() if not kind.training}
    families: dict[str, list[str]] = {}
    for name, kind in chosen.items():
        families.setdefault(repr(kind().prompts), []).append(name)
    start, before = time.monotonic(), 0
    if not asked.small:
        before = torch.cuda.memory_allocated()
    print(f"{'seconds':>9}{'peak GiB':>10}  probes that share a prompt", flush=True)
    for names in sorted(families.values(), key=len, reverse=True):
        if time.monotonic() - start > asked.seconds:
            print(f"{'no time':>19}  {', '.join(names)}", flush=True)
            continue
        if not asked.small:
            torch.cuda.reset_peak_memory_stats()
        began, refused = time.monotonic(), []
        try:
            family = [
                chosen[n](prompts=stretched(chosen[n]().prompts, asked.tokens)) for n in names
            ]
            with using(asked.impl):
                headscope.scan(model, family, samples=1)
        except HeadscopeError as refusal:
            refused = [str(refusal)]
        except torch.OutOfMemoryError:
            refused = ["out of memory"]
            torch.cuda.empty_cache()
        peak = 0.0
        if not asked.small:
            torch.cuda.synchronize()
            peak = (torch.cuda.max_memory_allocated() - before) / 2**30
        seconds = time.monotonic() - began
        print(f"{seconds:>9.1f}{peak:>10.2f}  {', '.join(names)} {' '.join(refused)}", flush=True)
    whole = time.monotonic() - start
    print(f"\n{whole:.1f} s in all; the model itself takes {before / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
