"""Statistics of a pattern on Triton, beside a dense forward pass of cuDNN, on a GPU.

    python benchmarks/head_statistics.py --tokens 32768 131072

32 query heads on 8 KV heads, 128 wide, bfloat16, one text. Asked through `Attention`, one after the
other: `row_stats` with 8 sets of keys (lse, entropy, mean distance, top key, masses),
`column_means`, and `block_map(128)`. Ratios are medians over rounds in which both run once;
memory is the peak beyond q, k and v. At 2 048 tokens all of it is compared to the reference.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from environment import describe
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.kernels.choice import using

HEADS, KV, WIDTH = 32, 8, 128


def made(tokens: int) -> Attention:
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(heads: int) -> torch.Tensor:
        x = torch.randn(1, heads, tokens, WIDTH, generator=generator, device="cuda")
        return x.bfloat16()

    position = torch.arange(tokens, device="cuda")[None]
    return Attention(
        layer=0, q=normal(HEADS) * 2, k=normal(KV), v=normal(KV), scale=WIDTH**-0.5,
        query_positions=position, key_positions=position, slots=Slots(0, 0, padded=False),
    )  # fmt: skip


def regions(tokens: int) -> dict[str, list[int] | slice]:
    """The first tokens, and seven passages of a sixteenth of the text."""
    passage = tokens // 16
    spans = {f"span {i}": slice(2 * i * passage, (2 * i + 1) * passage) for i in range(1, 8)}
    return {"first": [0, 1, 2, 3], **spans}


def ask(attention: Attention) -> list[torch.Tensor]:
    rows = attention.row_stats(regions(attention.n_keys))  # type: ignore[arg-type]
    columns, squares = attention.column_means(), attention.block_map(128)
    return [rows.lse, rows.entropy, rows.distance, *rows.mass.values(), columns, squares]


def fresh(attention: Attention) -> Attention:
    """The same without what is kept of it."""
    return attention.with_v(attention.v)


def timed(call: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[32_768, 131_072])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    describe()
    print(torch.cuda.get_device_name())
    small = made(2048)
    with using("reference"):
        want = ask(fresh(small))
    with using("triton"):
        got = ask(fresh(small))
    worst = max(
        float(((a - b).abs() / (1e-3 + b.abs())).max()) for a, b in zip(got, want, strict=True)
    )
    print(f"2048 tokens, against the reference: {worst:.1e} relative (above 1e-3) at most")
    for tokens in asked.tokens:
        attention = made(tokens)

        def dense(a: Attention = attention) -> torch.Tensor:
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return scaled_dot_product_attention(a.q, a.k, a.v, is_causal=True, enable_gqa=True)

        def ours(a: Attention = attention) -> list[torch.Tensor]:
            with using("triton"):
                return ask(fresh(a))

        dense(), ours()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        ours()
        peak = torch.cuda.max_memory_allocated() - before
        rounds = [(timed(dense), timed(ours)) for _ in range(asked.rounds)]
        ratio = statistics.median(b / a for a, b in rounds)
        dense_ms, ours_ms = (statistics.median(x) for x in zip(*rounds, strict=True))
        print(
            f"{tokens} tokens: {ours_ms:.1f} ms, {ratio:.2f} times a dense pass of {dense_ms:.1f} "
            f"ms; {peak / 1e9:.2f} GB beyond q, k and v",
            flush=True,
        )


if __name__ == "__main__":
    main()
