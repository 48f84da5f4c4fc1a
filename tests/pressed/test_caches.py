"""Pressed methods that evict keys or keep state while a model generates."""

import pytest
import torch
from conftest import opened
from pressed.methods import _SnapKV, _Tidal
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.stack import Attend

TOKENS = torch.randint(3, 97, (2, 30), generator=torch.Generator().manual_seed(4))
PADDED = torch.ones_like(TOKENS)
PADDED[0, :9] = 0


def decode(model: HeadModel, mask: Tensor, prompt: int = 22) -> Tensor:
    """Logits of a prefill and the steps after it."""
    cache = model.new_cache()
    logits = [model(TOKENS[:, :prompt], attention_mask=mask[:, :prompt], cache=cache, last=1)]
    for t in range(prompt, TOKENS.shape[1]):
        step = model(TOKENS[:, [t]], attention_mask=mask[:, : t + 1], cache=cache)
        logits.append(step)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("mask", [torch.ones_like(TOKENS), PADDED], ids=["plain", "padded"])
def test_snapkv_equals_hiding_the_same_keys(name: str, mask: Tensor) -> None:
    model, method = opened(name), _SnapKV()
    kept: dict[int, Tensor] = {}

    def hide(attention: Attention, attend: Attend) -> Attended:
        """The oracle: every key stays, and the evicted ones are masked in later steps."""
        if attention.run.phase == "prefill":
            attended = attend(attention)
            kept[attention.layer] = method.kept(attended.attention)
            return attended
        gone = torch.ones(2, attention.n_kv_heads, attention.n_keys, dtype=torch.bool)
        gone[..., 22:] = False
        gone.scatter_(2, kept[attention.layer], False)
        gone = gone.repeat_interleave(attention.group, 1)
        return attend(attention.with_bias(gone, -torch.inf))

    with method(model):
        found = decode(model, mask)
    with model.entered(hide):
        want = decode(model, mask)
    assert_close(found, want, atol=1e-4, rtol=1e-4)
    assert (found - decode(model, mask))[:, 1:].abs().max() > 1e-3


def test_snapkv_frees_memory_and_leaves_generate_working(llama: HeadModel) -> None:
    cache = llama.new_cache()
    with _SnapKV()(llama):
        tokens = llama.generate(TOKENS, max_new_tokens=6, past_key_values=cache)
    assert tokens.shape == (2, 6)
    assert [layer.keys.shape[2] for layer in cache.layers] == [10 + 5] * 3
    assert cache.get_seq_length() == TOKENS.shape[1] + 5


def test_eviction_is_refused_where_it_cannot_be(llama: HeadModel) -> None:
    with _SnapKV()(llama), pytest.raises(HeadscopeError, match="cannot be evicted"):
        llama.generate(TOKENS, max_new_tokens=2, cache_implementation="static")


def test_tidal_with_every_key_equals_full_attention(llama: HeadModel) -> None:
    with _Tidal(k=99)(llama):
        found = decode(llama, torch.ones_like(TOKENS))
    assert_close(found, decode(llama, torch.ones_like(TOKENS)), atol=1e-5, rtol=1e-5)


def test_tidal_equals_a_dense_reuse_of_one_choice(llama: HeadModel) -> None:
    chosen: dict[str, Tensor] = {}

    def reuse(attention: Attention, attend: Attend) -> Attended:
        if attention.run.phase == "prefill" or attention.layer == 0:
            return attend(attention)
        pattern = attention.dense()
        if attention.layer == 1:
            chosen["mask"] = pattern >= pattern.topk(5, -1).values[..., -1:]
        else:
            pattern = pattern * chosen["mask"]
            pattern = pattern / pattern.sum(-1, keepdim=True)
        v = attention.v.repeat_interleave(attention.group, 1)
        return Attended(pattern @ v, attention)

    with _Tidal(k=5)(llama):
        found = decode(llama, torch.ones_like(TOKENS))
    with llama.entered(reuse):
        want = decode(llama, torch.ones_like(TOKENS))
    assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_state_follows_the_sequence(llama: HeadModel) -> None:
    method, runs = _Tidal(), []
    with method(llama):
        with llama.observed(lambda a: runs.append(a.attention.run)):
            llama.generate(TOKENS, max_new_tokens=3)
            assert method in runs[-1].state
            llama(TOKENS)
        assert method not in runs[-1].state
        with pytest.raises(HeadscopeError, match="beam search"):
            llama.generate(TOKENS, max_new_tokens=4, num_beams=2)
    assert all(method not in run.state for run in runs)


def test_drafts_are_verified_and_taken_back(llama: HeadModel) -> None:
    """A phrase that repeats lets prompt lookup draft tokens: several queries, then a crop."""
    prompt = TOKENS[:1, :10].repeat(1, 3)
    plain = llama.generate(prompt, max_new_tokens=8)
    phases: set[str] = set()
    with _Tidal(k=99)(llama), llama.observed(lambda a: phases.add(a.attention.run.phase)):
        drafted = llama.generate(prompt, max_new_tokens=8, prompt_lookup_num_tokens=3)
    assert torch.equal(plain, drafted)
    assert "verify" in phases
    assert "chunk" not in phases
