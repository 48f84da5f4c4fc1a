"""Methods that add to logits against the same edit of a dense float64 pattern."""

from importlib import import_module

import oracle
import pytest
import torch
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st
from interventions.test_conformance import scoped
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.engines import Attended, dense
from headscope.interventions.spotlight import Spotlight
from headscope.model import HeadModel
from headscope.run import Run

EDITS = [name for name in scoped() if hasattr(import_module(f"altered.{name}"), "edit")]


def made(
    seed: int, n: int, padding: int, layer: int, sharp: float, sink: bool = False
) -> Attention:
    """One layer of random float64 queries, keys and values; the first row is padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(2, heads, n, 8, generator=generator, dtype=torch.float64) for heads in (6, 2, 2)
    )
    positions = torch.arange(n).repeat(2, 1)
    positions[0] = (positions[0] - padding).clamp(min=-1)
    lengths = torch.tensor([n - padding, n]) - 4
    return Attention(
        layer, q * sharp, k, v, 8**-0.5, positions, positions,
        sink_logits=torch.randn(6, generator=generator, dtype=torch.float64) if sink else None,
        run=Run(seen=n, prompt_length=lengths),
    )  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(18, 37),
    padding=st.integers(0, 3),
    layer=st.integers(0, 2),
    sharp=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_a_bias_equals_the_edit_after_the_softmax(
    name: str, seed: int, n: int, padding: int, layer: int, sharp: float
) -> None:
    module = import_module(f"altered.{name}")
    for method in module.methods(opened("llama")):
        attention = made(seed, n, padding, layer, sharp)
        run: list[Attention] = []

        def engine(a: Attention, run: list[Attention] = run) -> Attended:
            run.append(a)
            return dense(a)

        z = method.attend(attention, engine).z
        pattern = module.edit(method, attention, oracle.dense(attention).pattern)
        if len(run) == 1:
            assert_close(run[0].dense(), pattern, atol=1e-6, rtol=0)
        v = attention.v.repeat_interleave(attention.group, 1)
        assert_close(z, _real(attention, pattern @ v), atol=1e-6, rtol=1e-6)


def _real(attention: Attention, z: Tensor) -> Tensor:
    return z.masked_fill(attention.query_positions[:, None, :, None] < 0, 0)


@pytest.mark.parametrize("sink", [False, True], ids=["plain", "learned sink"])
def test_spotlight_meets_its_target_exactly(sink: bool) -> None:
    attention = made(3, 30, 2, 1, 1.0, sink)
    method = Spotlight((4, 9), target=0.35)
    kept: list[Attention] = []
    method.attend(made(3, 30, 2, 1, 1.0, sink), lambda a: kept.append(a) or dense(a))
    marked = torch.zeros(2, 30, dtype=torch.bool)
    marked[0, 6:11] = marked[1, 4:9] = True
    before, after = attention.mass(marked), kept[0].mass(marked)
    low = (before > 0) & (before < 0.35)
    assert low.float().mean() > 0.3
    assert_close(after[low], torch.full_like(after[low], 0.35), atol=1e-12, rtol=0)
    assert_close(after[~low], before[~low], atol=1e-6, rtol=0)


def test_act_moves_attention_and_makes_none(llama: HeadModel) -> None:
    """With a learned sink too, what keys have together stays the same."""
    attention = made(5, 30, 2, 1, 3.0, True)
    for method in import_module("altered.act").methods(llama):
        kept: list[Attention] = []
        method.attend(attention, lambda a, kept=kept: kept.append(a) or dense(a))
        total = attention.mass(slice(0, 30))
        assert_close(kept[0].mass(slice(0, 30)), total, atol=1e-12, rtol=0)
