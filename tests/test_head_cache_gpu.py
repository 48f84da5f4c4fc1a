"""On a GPU a `HeadCache` says what it says on the CPU."""

import pytest
import torch
from conftest import opened
from head_caches import PADDED, TOKENS, WHOLE, read
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close

import headscope
from headscope.head_cache import HeadCache
from headscope.interventions.sparse_attention import SparseAttention
from headscope.patterns import Full, Streaming
from headscope.sparsity import SparseProfile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
RULES = {"L0H0": Full(), "L0H3": Streaming(1, 3), "L1H4": Streaming(0, 3, growth=0.2)}
SIZES = (23, 1, 1, 4, 1, 15, 1, 1)


@pytest.mark.parametrize("mask", [WHOLE, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("name", ["llama", "llama_mqa", "gemma2", "gpt_oss"])
def test_it_says_what_the_cpu_says(name: str, mask: Tensor) -> None:
    here = opened(name)
    there = headscope.load(tiny_model(name).cuda(), tiny_tokenizer())
    profile = SparseProfile.of(here, RULES, rest=Streaming(2, 6))
    cache = HeadCache(profile)
    with SparseAttention(profile)(here), SparseAttention(profile)(there):
        want = here(TOKENS, attention_mask=mask)[mask.bool()]
        found = read(there, TOKENS.cuda(), cache, SIZES, mask.cuda()).cpu()[mask.bool()]
        asked = {"attention_mask": mask[:, :40], "max_new_tokens": 8, "num_beams": 2}
        said = here.generate(TOKENS[:, :40], past_key_values=HeadCache(profile), **asked)
        asked["attention_mask"] = asked["attention_mask"].cuda()
        held = HeadCache(profile)
        again = there.generate(TOKENS[:, :40].cuda(), past_key_values=held, **asked)
    assert_close(found, want, atol=2e-3, rtol=2e-3)
    assert cache.kv_bytes() == profile.kv_bytes(60, 4, 3)
    assert torch.equal(again.cpu(), said)


@pytest.mark.parametrize("mask", [WHOLE, PADDED], ids=["whole", "padded"])
def test_it_runs_in_bfloat16(mask: Tensor) -> None:
    model = headscope.load(tiny_model("llama").cuda().bfloat16(), tiny_tokenizer())
    profile = SparseProfile.of(model, RULES, rest=Streaming(2, 6))
    cache = HeadCache(profile)
    with SparseAttention(profile)(model):
        found = read(model, TOKENS.cuda(), cache, SIZES, mask.cuda())
        want = model(TOKENS.cuda(), attention_mask=mask.cuda())
    gap = (found - want)[mask.cuda().bool()].abs()
    assert gap.max() < 1
    assert gap.mean() < 0.1
    assert cache.kv_bytes() == profile.kv_bytes(60, 2, 3)
