"""A profile that was exported and read again computes what it did; block masks are torch's own."""

import warnings
from pathlib import Path

import jaxtyping
import pytest
import torch
from conftest import opened
from export.consumers.flashinfer import seen
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.testing import assert_close

from headscope import HeadscopeError
from headscope.attention import Attention
from headscope.catalog import profile_formats
from headscope.export.profiles.flashinfer import Flashinfer, plan_arguments
from headscope.export.profiles.flex_attention import FlexAttention, block_mask
from headscope.interventions.sparse_attention import SparseAttention
from headscope.patterns import Full, PowerOfTwo, Radial, Streaming, Strided
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.sparsity import SparseProfile
from headscope.sparsity.engine import SparseEngine

NAMES = sorted(profile_formats())
TOKENS = torch.randint(3, 97, (1, 41), generator=torch.Generator().manual_seed(5))
N = TOKENS.shape[1]


def profile_for(name: str) -> SparseProfile:
    """Of the tiny model, with heads of several kinds as far as the format has them."""
    model, kv = opened("llama"), profile_formats()[name].granularity == "KV head"
    one: Rule = Streaming(2, 5)
    if name == "minference":
        rows = [[Full(), one, VerticalSlash(30, 100)] * 2, [one] * 6, [Streaming(0, 3), *[one] * 5]]
    elif name == "qwen_1m":
        rows = [[Full(), VerticalSlash(31, 100)] * 3] * 3
    elif name == "moa":
        rows = [[Full(), Streaming(64, 9)] * 3, [Streaming(64, -3, 0.25)] * 6, [Full()] * 6]
    elif name == "flex_attention":
        rows = [[Full(), one, Strided(1, 2, 3), Radial(1, 4), PowerOfTwo(1, 4, 4), one]] * 3
    elif name == "flashinfer":
        rows = [[one] * 3 + [Strided(1, 2, 3)] * 3] * 3
    elif kv:
        rows = [[one] * 3 + [Full()] * 3, [one] * 6, [Full()] * 6]
    else:
        rows = [[one, Full(), one] * 2, [Full()] * 6, [Full(), Full(), one] * 2]
    return SparseProfile.of(model, rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_outputs(name: str, tmp_path: Path) -> None:
    profile = profile_for(name)
    blocks = {"length": N, "block": 8} if name.startswith("fl") else {}
    format_ = profile_formats()[name](**blocks)
    format_.write(profile, tmp_path / "out")
    back = format_.read(tmp_path / "out", profile)
    model = opened("llama")
    plain = model(TOKENS)
    with SparseAttention(profile)(model):
        want = model(TOKENS)
    with SparseAttention(back)(model):
        found = model(TOKENS)
    assert torch.equal(found, want)
    if name not in ("moa", "qwen_1m"):  # whose least sink and lines see all of a text this short
        assert (want - plain).abs().max() > 1e-3


def attention(heads: int = 6, kv_heads: int = 2, n: int = N) -> Attention:
    made = torch.Generator().manual_seed(0)
    q = torch.randn(1, heads, n, 8, generator=made)
    k, v = (torch.randn(1, kv_heads, n, 8, generator=made) for _ in range(2))
    positions = torch.arange(n)[None]
    return Attention(
        layer=1, q=q, k=k, v=v, scale=8**-0.5, query_positions=positions, key_positions=positions
    )


@pytest.mark.parametrize("block", [1, 7, 8, 16, 41])
def test_block_masks_are_those_that_torch_makes(block: int, tmp_path: Path) -> None:
    profile = profile_for("flex_attention")
    FlexAttention(length=N, block=block).write(profile, tmp_path / "masks")
    made = block_mask(tmp_path / "masks", 1)

    def rule_of(batch, head, query, key):
        rules, seen = profile.of_layer(1), key < 0
        for number, rule in enumerate(rules):
            seen = seen | ((head == number) & rule.mask(query, key))
        return seen & (key <= query)

    want = create_block_mask(rule_of, 1, 6, N, N, device="cpu", BLOCK_SIZE=block)
    assert made.shape == want.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        counts, found = (getattr(mask, f"{name}_num_blocks") for mask in (made, want))
        assert torch.equal(counts, found)
        listed = [getattr(mask, f"{name}_indices") for mask in (made, want)]
        inside = torch.arange(listed[0].shape[-1]) < counts[..., None]
        assert torch.equal(listed[0][inside], listed[1][inside])
    assert torch.equal(made.to_dense(), want.to_dense())


def test_flex_attention_and_the_engine_agree(tmp_path: Path, monkeypatch) -> None:
    # torch traces the rules, and cannot trace the shape checks that only tests put around them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    profile = profile_for("flex_attention")
    FlexAttention(length=N, block=8).write(profile, tmp_path / "masks")
    opened_file = FlexAttention().open(tmp_path / "masks")
    mine = attention()
    with warnings.catch_warnings(action="ignore"):  # that it is not compiled
        found = flex_attention(
            mine.q, mine.k, mine.v, block_mask=block_mask(opened_file, 1), enable_gqa=True
        )
    assert_close(found, SparseEngine(profile)(mine).z, atol=1e-5, rtol=1e-5)
    with pytest.raises(HeadscopeError, match="has no layer 7"):
        block_mask(opened_file, 7)
    with pytest.raises(HeadscopeError, match="cannot be read as flashinfer"):
        plan_arguments(tmp_path / "masks", 1, 2)


def test_flashinfer_computes_whole_blocks(tmp_path: Path) -> None:
    """Blocks of one token are exact; larger ones see no less, and never a later token."""
    profile = profile_for("flashinfer")
    query, key = torch.arange(N)[:, None], torch.arange(N)[None]
    for block in (1, 8):
        Flashinfer(length=N, block=block).write(profile, tmp_path / str(block))
        told = plan_arguments(tmp_path / str(block), 1, 2)
        assert told["num_qo_heads"] == 6
        for kv, rule in enumerate(profile.of_layer(1)[::3]):
            mask = seen(told, kv)
            wanted = rule.mask(query, key) & (key <= query)  # pyright: ignore
            assert not (wanted & ~mask).any()
            assert not (mask & (key > query)).any()
            assert torch.equal(mask, wanted) == (block == 1)
    with pytest.raises(HeadscopeError, match="not 4 groups of one rule"):
        plan_arguments(tmp_path / "8", 1, 4)
