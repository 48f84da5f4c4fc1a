"""Every kernel once, at odd sizes: for compute-sanitizer, which looks for reads and writes outside.

compute-sanitizer --tool memcheck python benchmarks/kernels_checked.py
"""

import torch
from environment import describe

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.catalog import patterns, selectors
from headscope.kernels.api import sparse_attention
from headscope.kernels.choice import using
from headscope.kernels.decode_plan import DecodePlan, KeyStore
from headscope.kernels.decoding import decode
from headscope.patterns import Full, Streaming


def attention(queries: int, keys: int, width: int, dtype: torch.dtype) -> Attention:
    made = torch.Generator("cuda").manual_seed(0)

    def normal(heads: int, tokens: int) -> torch.Tensor:
        # Exactly as large as it has to be: what lies behind it belongs to nobody.
        x = torch.randn(2, heads, tokens, width, generator=made, device="cuda")
        return x.to(dtype)

    key = torch.arange(keys, device="cuda").expand(2, -1)
    return Attention(
        layer=0, q=normal(8, queries), k=normal(2, keys), v=normal(2, keys), scale=width**-0.5,
        query_positions=key[:, keys - queries :], key_positions=key,
        slots=Slots(keys - queries, 0, padded=False),
    )  # fmt: skip


def main() -> None:
    describe()
    print(torch.cuda.get_device_name())
    rules = [*(kind() for kind in patterns().values()), *(kind() for kind in selectors().values())]
    with using("triton"):
        for width, dtype in ((64, torch.float16), (96, torch.bfloat16), (128, torch.bfloat16)):
            a = attention(411, 533, width, dtype)
            for some in (rules[i : i + 8] for i in range(0, len(rules), 8)):
                of_heads = (some + [Full(), Streaming(3, 70)] * 4)[:8]
                sparse_attention(a.q, a.k, a.v, of_heads, dispatch="single")
            whole = attention(533, 533, width, dtype)
            for rule in (selectors()["block_top_k"](block=128, blocks=2), Streaming(130, 66)):
                sparse_attention(whole.q, whole.k, whole.v, [rule] * 8, softcap=20.0)
            # Long enough for whole tiles and others to have loops of their own.
            long = attention(4_301, 4_301, width, dtype)
            sparse_attention(long.q, long.k, long.v, [Full()] * 8, dispatch="single")
            beside = [Full()] * 4 + [Streaming(3, 70)] * 4
            done = sparse_attention(whole.q, whole.k, whole.v, beside, dispatch="hybrid")
            assert done.ran is not None
            assert done.ran.dispatch == "hybrid"
            regions = {"first": [0, 1, 2], "near": Streaming(0, 70)}
            for given in (a, whole):
                given.row_stats(regions, clip=100)
                given.column_means()
                given.block_map(128)
                given.sweep()
                given.mass([0, 5])
            plan = DecodePlan.of(
                [
                    KeyStore(whole.k[:, :1], whole.v[:, :1], [0]),
                    KeyStore(whole.k[:, 1:, :333], whole.v[:, 1:, :333], [1], ring=(33, 300)),
                ],
                [(0, 2**30)] * 2 + [(5, 77)] * 2 + [(33, 300)] * 4,
            )
            for seen in (1, 64, 333, 533):
                lengths = torch.full((2,), seen, dtype=torch.int32, device="cuda")
                decode(whole.q[:, :, :1], plan, lengths, whole.scale)
            torch.cuda.synchronize()
            print(f"heads {width} wide, {dtype}: done", flush=True)


if __name__ == "__main__":
    main()
