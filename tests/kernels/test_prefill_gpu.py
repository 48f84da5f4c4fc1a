"""On a GPU, at larger sizes: the prefill kernel against a float32 softmax over a dense mask."""

import pytest
import torch
from test_prefill import layer
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.catalog import patterns, selectors
from headscope.kernels import attending
from headscope.kernels.choice import using
from headscope.patterns import Full, Sharded, Streaming
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROWS = 512  # of the oracle at a time
MIXES: dict[str, list[Rule]] = {
    "streaming": [Full()] * 4 + [Streaming(128, 1024)] * 4,
    "not by groups": [Full(), Streaming(3, 700)] * 4,
    "patterns": [*[kind() for kind in patterns().values()][:7], Sharded(64, 300, 64, 8, 3)],
    "chosen": [
        selectors()["vertical_slash"](vertical=200, slash=600),
        selectors()["block_top_k"](block=128, blocks=9),
    ]
    * 4,
    "top-k": [selectors()["block_top_k"](block=128, blocks=9)] * 8,
    "all": [Full(), Streaming(4, 99), Sharded(), selectors()["vertical_slash"]()] * 2,
}


def check(a: Attention, of_heads: list[Rule], dispatch: str) -> None:
    with using("triton"):
        found = attending.attend(a, of_heads, dispatch)  # type: ignore[arg-type]
    assert found is not None
    (z, lse), _, resolved = found
    keys = torch.arange(a.n_keys, device="cuda")[None]
    for head, sees in enumerate(resolved.sees):
        for rows in torch.arange(a.n_queries, device="cuda").split(ROWS):
            query = a.query_positions[0, rows, None]
            if isinstance(sees, Pattern):
                seen = sees.mask(query, a.key_positions)
            else:
                index = torch.tensor([sees[1]], device="cuda")
                chosen = resolved.selections[sees[0]].heads(index)
                seen = chosen.mask(a, rows[:, None], keys)[0, 0]
            want = oracle(a, head, rows, seen & (a.key_positions <= query))
            assert_close(z[0, head, rows].float(), want[0], atol=1e-2, rtol=1e-2)
            assert_close(lse[0, head, rows], want[1], atol=1e-4, rtol=1e-4)


def oracle(a: Attention, head: int, rows: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    kv = head // a.group
    s = (a.q[0, head, rows].float() @ a.k[0, kv].float().mT) * a.scale
    if a.softcap is not None:
        s = torch.tanh(s / a.softcap) * a.softcap
    s = s.masked_fill(~seen, -torch.inf)
    return s.softmax(-1) @ a.v[0, kv].float(), s.logsumexp(-1)


@pytest.mark.parametrize("dispatch", ["hybrid", "single"])
@pytest.mark.parametrize("width", [64, 96, 128, 256])
@pytest.mark.parametrize("mix", list(MIXES))
def test_it_equals_a_dense_mask(mix: str, width: int, dispatch: str) -> None:
    a = layer(queries=5_011, kv_heads=2, group=4, width=width)
    check(a, MIXES[mix], dispatch)


@pytest.mark.parametrize("mix", list(MIXES))
def test_a_chunk_with_a_soft_cap(mix: str) -> None:
    a = layer(queries=1_300, past=3_003, kv_heads=2, group=4, width=128, softcap=20.0)
    check(a, MIXES[mix], "auto")
