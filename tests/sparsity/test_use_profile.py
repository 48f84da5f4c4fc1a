"""Profiles on transformers models as they are: `attn_implementation="headscope"`."""

from pathlib import Path

import pytest
import torch
from conftest import opened
from tiny import CONFIGS, tiny_model
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, PreTrainedModel

from headscope.errors import HeadscopeError
from headscope.interventions.sparse_attention import SparseAttention
from headscope.patterns import Streaming
from headscope.sparsity import SparseProfile, drop_profile, use_profile, using_profile

TOKENS = torch.randint(3, 97, (2, 21), generator=torch.Generator().manual_seed(5))


def streaming(name: str) -> SparseProfile:
    return SparseProfile.of(opened(name), {"L0H1": Streaming(1, 3)}, rest=Streaming(2, 5))


def logits(hf: PreTrainedModel, tokens: Tensor = TOKENS) -> Tensor:
    with torch.no_grad():
        return hf(input_ids=tokens).logits


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_model_attends_by_it_until_it_is_dropped(name: str) -> None:
    profile = streaming(name)
    with SparseAttention(profile)(opened(name)):
        want = opened(name)(TOKENS)
    hf = tiny_model(name)
    before = logits(hf)
    use_profile(hf, profile)
    assert_close(logits(hf), want, atol=1e-5, rtol=1e-5)
    assert (want - before).abs().max() > 1e-3
    drop_profile(hf)
    torch.testing.assert_close(logits(hf), before, atol=0, rtol=0)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_model_opened_by_name_generates_by_it(cache: str, tmp_path: Path) -> None:
    profile = streaming("llama")
    profile.save(tmp_path / "profile.json")
    tiny_model("llama").save_pretrained(tmp_path / "model")
    hf = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", attn_implementation="headscope"
    ).eval()
    mask = torch.ones_like(TOKENS)
    mask[0, :6] = 0
    asked = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with using_profile(hf, tmp_path / "profile.json"):
        found = hf.generate(TOKENS, **asked, cache_implementation=cache)
    with SparseAttention(profile)(opened("llama")):
        want = opened("llama").generate(TOKENS, attention_mask=mask, max_new_tokens=6)
    assert torch.equal(found[:, TOKENS.shape[1] :], want)


def test_without_a_profile_it_says_what_to_do() -> None:
    use_profile(hf := tiny_model("llama"), streaming("llama"))  # the name is registered
    drop_profile(hf)
    own = AutoModelForCausalLM.from_config(hf.config, attn_implementation="headscope").eval()
    with pytest.raises(HeadscopeError, match="use_profile"):
        logits(own)


def test_a_model_that_is_let_go_is_freed() -> None:
    import gc
    import weakref

    use_profile(hf := tiny_model("llama"), streaming("llama"))
    logits(hf)
    gone = weakref.ref(hf)
    del hf
    gc.collect()
    assert gone() is None


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    hf, profile = tiny_model("llama"), streaming("llama")
    with pytest.raises(HeadscopeError, match="SparseAttention"):
        use_profile(opened("llama"), profile)
    with pytest.raises(HeadscopeError, match="Plan one for this model"):
        use_profile(hf, streaming("llama_mqa"))
    with pytest.raises(HeadscopeError, match=r"none\.json"):
        use_profile(hf, tmp_path / "none.json")
    with pytest.raises(HeadscopeError, match="No profile"):
        drop_profile(hf)
    use_profile(hf, profile)
    with pytest.raises(HeadscopeError, match="already"):
        use_profile(hf, profile)


def test_a_profile_does_not_fall_silent() -> None:
    use_profile(hf := tiny_model("llama"), streaming("llama"))
    hf.set_attn_implementation("eager")
    with pytest.raises(HeadscopeError, match="no longer goes through headscope"):
        logits(hf)
    with pytest.raises(HeadscopeError, match="Where an answer starts"):
        use_profile(tiny_model("llama"), streaming("llama"), "answer")
