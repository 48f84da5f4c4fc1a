"""Caches are copied to read a prompt once: a copy goes on as the cache would."""

import copy
from collections.abc import Callable

import pytest
import torch
from conftest import opened
from torch.testing import assert_close
from transformers import DynamicCache
from transformers.cache_utils import Cache

from headscope.interventions.sparse_attention import SparseAttention
from headscope.patterns import Streaming
from headscope.sparsity import HeadCache, SparseProfile

TOKENS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(2))
PROFILE = SparseProfile.of(opened("llama"), {"L0H0": Streaming(1, 4)}, rest=Streaming(2, 6))


@pytest.mark.parametrize("made", [DynamicCache, lambda: HeadCache(PROFILE)])
def test_a_copy_goes_on_by_itself(made: Callable[[], Cache]) -> None:
    model = opened("llama")
    with SparseAttention(PROFILE)(model):
        cache = made()
        model(TOKENS[:, :12], cache=cache)
        inside = copy.deepcopy(cache)
        want = model(TOKENS[:, 12:], cache=cache)
    outside = copy.deepcopy(cache)
    assert outside.get_seq_length() == 20
    with SparseAttention(PROFILE)(model):
        found = model(TOKENS[:, 12:], cache=inside)
        assert_close(found, want, atol=1e-5, rtol=1e-5)
        step = model(TOKENS[:, :1], cache=outside)
        assert_close(step, model(TOKENS[:, :1], cache=cache), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("made", [DynamicCache, lambda: HeadCache(PROFILE)])
def test_beams_of_a_copy_change_places(made: Callable[[], Cache]) -> None:
    model = opened("llama")
    with SparseAttention(PROFILE)(model):
        model(TOKENS[:, :12], cache=(cache := made()))
        swapped = copy.deepcopy(cache)
        swapped.reorder_cache(torch.tensor([1, 0]))
        found = model(TOKENS.flip(0)[:, 12:], cache=swapped)
        want = model(TOKENS[:, 12:], cache=cache)
    assert_close(found.flip(0), want, atol=1e-5, rtol=1e-5)
