"""A long answer with a cache that holds sinks and windows alone: memory, and logits.

    nice python benchmarks/head_cache_flat.py            # 4 000 tokens, float32, some minutes

The built-in model writes with a `HeadCache` of a profile in which every head streams, token by
token, under `SparseAttention` of the same profile. Every so many tokens: the bytes of keys and
values that are allocated, of all tensors that are alive, and of the process, once what it
allocated itself ("private") and once with the pages of files that are resident ("process"); and
the processor time of a step. The script keeps one row of logits at each of these lines.

Those logits are then compared with a full forward pass over the whole text in which what the
profile hides is masked (`SparseAttention`, no cache), and with the model without a profile, for
scale. Tokens are drawn, not taken greedily, so that the text does not loop. The last line says by
how much a cache that holds everything would have grown.
"""

import argparse
import gc
import time

import torch
from environment import describe, memory_now, memory_private

import headscope
from headscope.interventions.sparse_attention import SparseAttention
from headscope.patterns import Full, Streaming
from headscope.sparsity import HeadCache, SparseProfile

MIB = 2**20
PROMPT = "Once upon a time, in a village at the edge of a great forest, there lived"


def alive() -> int:
    """Bytes that tensors hold on to, each store counted once."""
    gc.collect()
    held = (x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter))
    stores = (x.untyped_storage() for x in held)
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--sink", type=int, default=4)
    parser.add_argument("--window", type=int, default=252)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    describe()
    model = headscope.load("smollm2", dtype=torch.float32, device=asked.device)
    profile = SparseProfile.of(model, {}, rest=Streaming(asked.sink, asked.window))
    cache, generator = HeadCache(profile), torch.Generator().manual_seed(0)
    tokens = new = model.tokens(PROMPT)
    n, said = tokens.shape[1] + asked.tokens, dict[int, torch.Tensor]()
    print(f"{profile}, {asked.tokens} tokens behind a prompt of {tokens.shape[1]}\n")
    columns = ("KV MiB", "tensors MiB", "private MiB", "process MiB", "CPU ms/token")
    print(f"{'tokens':>8}{''.join(f'{name:>14}' for name in columns)}", flush=True)
    with SparseAttention(profile)(model):
        start, before = time.process_time(), 0
        for made in range(asked.tokens + 1):
            logits = model(new, cache=cache, last=1)[0, -1].cpu()
            if made and made % asked.every == 0:
                ms = 1000 * (time.process_time() - start) / (made - before)
                sizes = (cache.kv_bytes(), alive(), memory_private(), memory_now())
                row = "".join(f"{size / MIB:>14.3f}" for size in sizes)
                print(f"{made:>8}{row}{ms:>14.1f}", flush=True)
                said[tokens.shape[1] - 1] = logits
                start, before = time.process_time(), made
            if made < asked.tokens:
                new = torch.multinomial(logits.softmax(-1), 1, generator=generator)[None]
                new = new.to(model.device)
                tokens = torch.cat((tokens, new), 1)
        assert cache.kv_bytes() == profile.kv_bytes(n, 4)
        whole = model(tokens)[0, list(said)].cpu()
    full = model(tokens)[0, list(said)].cpu()
    print(f"\n{'tokens':>8}{'against the full masked pass':>30}{'top token':>11}{'unmasked':>10}")
    first = n - asked.tokens
    for (at, logits), masked, plain in zip(said.items(), whole, full, strict=True):
        same = "the same" if int(logits.argmax()) == int(masked.argmax()) else "another"
        gap, scale = ((logits - other).abs().max() for other in (masked, plain))
        print(f"{at + 1 - first:>8}{float(gap):>30.1e}{same:>11}{float(scale):>10.1e}")
    print('\nlargest difference of a logit; "unmasked" is the model without the profile')
    everything = SparseProfile.of(model, {}, rest=Full())
    grown = everything.kv_bytes(n, 4) - everything.kv_bytes(first + asked.tokens // 4, 4)
    print(f"a full cache would grow by {grown / MIB:.1f} MiB in the last three quarters")


if __name__ == "__main__":
    main()
