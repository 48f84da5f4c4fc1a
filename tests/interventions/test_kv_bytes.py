"""What methods that live with fewer keys say of their memory, against keys counted in a pass."""

import dataclasses
from importlib import import_module
from typing import Any

import pytest
import torch
from conftest import opened
from torch import Tensor

from headscope.attention import Attention
from headscope.catalog import interventions
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.caching import _Cache
from headscope.interventions.duo_attention import DuoAttention
from headscope.interventions.snap_kv import SnapKV
from headscope.interventions.streaming_llm import StreamingLLM
from headscope.model import HeadModel

NAMES = sorted(name for name, kind in interventions().items() if kind.site == "cache")
TOKENS = torch.randint(3, 97, (1, 40), generator=torch.Generator().manual_seed(23))


def last_step(model: HeadModel, method: _Cache, tokens: int, new: int) -> tuple[Tensor, int]:
    """Keys that any query head of a group sees while the last token is read: [layer, kv_head]; and
    how long the cache then is."""
    seen = torch.zeros(model.n_layers, model.n_kv_heads, dtype=torch.long)
    cache = model.new_cache()

    def count(attended: Attended) -> None:
        attention: Attention = attended.attention
        for tile in attention.tiles([attention.n_queries - 1]):
            by_head = (tile.logits[0, :, 0] > -torch.inf).unflatten(0, (-1, attention.group))
            seen[attention.layer] += by_head.any(1).sum(-1)

    with method(model):
        options: dict[str, Any] = {"cache": cache, "prompt_length": tokens}
        model(TOKENS[:, :tokens], **options)
        for at in range(tokens, tokens + new):
            seen.zero_()
            with model.observed(count):
                model(TOKENS[:, [at]], **options)
    return seen, cache.get_seq_length()


@pytest.mark.parametrize(("tokens", "new"), [(18, 6), (18, 1), (4, 2), (30, 9)])
@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_those_of_the_keys_that_are_seen(name: str, tokens: int, new: int) -> None:
    model, module = opened("llama"), import_module(f"altered.{name}")
    for method in module.methods(model):
        seen, held = last_step(model, method, tokens, new)
        kept, read = method.kept_keys(model, tokens, new), method.read_keys(model, tokens, new)
        if getattr(module, "PROMPT_DECIDES", False):  # which of a layer's KV heads have how many
            read, kept, seen = (x.sort(-1).values for x in (read, kept, seen))
        assert torch.equal(read, seen), method
        if type(method).read_keys is not _Cache.read_keys:
            # It selects among keys that it all keeps.
            assert torch.equal(kept, torch.full_like(kept, held)), method
        else:
            assert torch.equal(kept, read)
        assert method.kv_bytes(model, tokens, new) == int(kept.sum()) * 2 * model.d_head * 4


@pytest.mark.parametrize("name", NAMES)
def test_fewer_bytes_than_the_whole_cache(name: str) -> None:
    """Every recipe saves something: keys that are kept, or keys that are read."""
    model = opened("llama")
    for method in import_module(f"altered.{name}").methods(model):
        everything = model.n_layers * model.n_kv_heads * 24
        if getattr(method, "part", "all") == "prefill":
            assert int(method.kept_keys(model, 18, 6).sum()) == everything
            continue
        assert int(method.read_keys(model, 18, 6).sum()) < everything, method


def test_no_streaming_head_is_a_bit_exact_no_op(llama: HeadModel) -> None:
    with llama.entered(lambda attention, attend: attend(attention)):
        plain = llama(TOKENS)
    with DuoAttention(())(llama):
        assert torch.equal(llama(TOKENS), plain)
    assert int(DuoAttention(()).kept_keys(llama, 18, 6).min()) == 24


def test_a_prompt_within_the_capacity_keeps_everything(llama: HeadModel) -> None:
    with SnapKV(18, 3, 3)(llama):
        cache = llama.new_cache()
        llama(TOKENS[:, :18], cache=cache, prompt_length=18)
        found = llama(TOKENS[:, 18:22], cache=cache, prompt_length=18)
    assert torch.allclose(found, llama(TOKENS[:, :22])[:, 18:], atol=1e-4)


def test_snap_kv_waits_for_the_end_of_a_prompt_read_in_chunks(llama: HeadModel) -> None:
    """Nothing is gone while the prompt is read, and all that is to go when it was."""
    counts: list[int] = []

    def count(attended: Attended) -> None:
        if attended.attention.layer == 1:
            (tile,) = attended.attention.tiles([attended.attention.n_queries - 1])
            counts.append(int((tile.logits[0, 0, 0] > -torch.inf).sum()))

    with SnapKV(8, 3, 3)(llama), llama.observed(count):
        cache = llama.new_cache()
        for start, stop in ((0, 7), (7, 18), (18, 19)):
            llama(TOKENS[:, start:stop], cache=cache, prompt_length=18)
    assert counts == [7, 18, 9]


@pytest.mark.parametrize("window", [6, 40])
def test_streaming_without_rope_is_a_mask(window: int) -> None:
    model = opened("gpt2")
    with StreamingLLM(2, window)(model):
        found = model(TOKENS)
    with StreamingLLM(2, window, rotate=False)(model):
        assert torch.equal(model(TOKENS), found)
    assert torch.allclose(found, model(TOKENS), atol=1e-4) == (window == 40)


def test_positions_change_nothing_until_something_is_dropped(llama: HeadModel) -> None:
    with StreamingLLM(2, 8)(llama):
        found = llama(TOKENS[:, :16])
    with StreamingLLM(2, 8, rotate=False)(llama):
        kept = llama(TOKENS[:, :16])
    assert torch.allclose(found[:, :10], kept[:, :10], atol=1e-4)
    assert not torch.allclose(found[:, 11:], kept[:, 11:], atol=1e-2)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: StreamingLLM(-1, 4), "sink to be a whole number of tokens, 0 or more"),
        (lambda: StreamingLLM(1, 0), "window to be a whole number of tokens, 1 or more"),
        (lambda: SnapKV(32, 32), "capacity to be a whole number of tokens, 33 or more"),
        (lambda: SnapKV(64, 32, 4), "an odd number of keys, not 4"),
        (lambda: DuoAttention(["L0H1"]), "'L0H1' names no KV head"),
    ],
)
def test_bad_parameters_are_refused(made: Any, said: str) -> None:
    with pytest.raises(HeadscopeError, match=said):
        made()


def test_a_kv_head_that_is_not_there_is_refused(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="no KV head L0KV2"), DuoAttention([(0, 2)])(llama):
        pass
    assert dataclasses.asdict(DuoAttention("L1KV0"))["streaming"] == ((1, 0),)
