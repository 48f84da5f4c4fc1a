"""Attention Buckets against models that were built with other bases, joined by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LlamaConfig

import headscope
from headscope.errors import HeadscopeError
from headscope.interventions.attention_buckets import MULTIPLES, AttentionBuckets
from headscope.interventions.envelopes import cost, covering, extremes
from headscope.interventions.snap_kv import SnapKV
from headscope.model import HeadModel

TOKENS = torch.randint(3, 97, (2, 16), generator=torch.Generator().manual_seed(3))
PADDED = torch.ones_like(TOKENS)
PADDED[0, :5] = 0
BASES = (10000.0, 300.0, 15000.0)


def with_bases(name: str, multiple: float) -> Any:
    """The tiny model of one architecture with its bases multiplied."""
    plain = tiny_model(name)
    config = copy.deepcopy(plain.config)
    parameters = config.rope_parameters
    for each in [parameters] if "rope_theta" in parameters else parameters.values():
        each["rope_theta"] *= multiple
    other = AutoModelForCausalLM.from_config(config).eval()
    other.load_state_dict(plain.state_dict())
    other.set_attn_implementation("eager")
    return other


def by_hand(name: str, multiples: tuple[float, ...], mask: Tensor = PADDED) -> np.ndarray:
    """Logits of a full pass: those of each model, weighed by the softmax of their maxima."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    each = np.stack(
        [
            with_bases(name, multiple)(TOKENS, attention_mask=mask, position_ids=positions)
            .logits.double()
            .numpy()
            for multiple in multiples
        ]
    )
    weights = np.exp(each.max(-1, keepdims=True))
    return (weights / weights.sum(0) * each).sum(0)


def steps(model: HeadModel, prompt: int = 10, mask: Tensor = PADDED) -> Tensor:
    cache = model.new_cache()
    parts = [model(TOKENS[:, :prompt], attention_mask=mask[:, :prompt], cache=cache)]
    for seen, width in ((prompt, 2), *((t, 1) for t in range(prompt + 2, TOKENS.shape[1]))):
        ids, stop = TOKENS[:, seen : seen + width], seen + width
        parts.append(model(ids, attention_mask=mask[:, :stop], cache=cache))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "gemma3", "gpt_neox"])
def test_it_joins_what_models_of_other_bases_say(name: str) -> None:
    model, real = opened(name), PADDED.bool()
    want = torch.tensor(by_hand(name, MULTIPLES)).float()[real]
    plain = model(TOKENS, attention_mask=PADDED)[real]
    with AttentionBuckets()(model):
        whole = model(TOKENS, attention_mask=PADDED)
        some = model(TOKENS, attention_mask=PADDED, last=3)
        found = steps(model)
    assert_close(whole[real], want, atol=2e-4, rtol=1e-4)
    assert_close(found[real], want, atol=2e-4, rtol=1e-4)
    assert_close(some, whole[:, -3:])
    assert (want - plain).abs().max() > 1e-3


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_every_backend_joins_bases_of_ones_own(backend: str) -> None:
    model, real = opened("llama", backend), PADDED.bool()
    want = torch.tensor(by_hand("llama", tuple(base / 10000 for base in BASES))).float()
    with AttentionBuckets(BASES)(model):
        assert_close(steps(model)[real], want[real], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_generation_goes_as_step_by_step(backend: str) -> None:
    model = opened("llama", backend)
    with AttentionBuckets(BASES)(model):
        found = model.generate(TOKENS, attention_mask=PADDED, max_new_tokens=6)
        ids, mask = TOKENS, PADDED
        for _ in range(6):
            new = model(ids, attention_mask=mask, last=1)[:, 0].argmax(-1, keepdim=True)
            new[(ids[:, 16:] == 2).any(1)] = 0  # what follows the end is padding
            ids, mask = torch.cat((ids, new), 1), torch.cat((mask, torch.ones_like(new)), 1)
    assert torch.equal(found, ids[:, 16:])
    plain = model.generate(TOKENS, attention_mask=PADDED, max_new_tokens=6)
    assert not torch.equal(found, plain)


def test_the_models_own_base_alone_changes_nothing() -> None:
    model = opened("llama")
    with model.entered(lambda attention, attend: attend(attention)):
        plain = steps(model)
    with AttentionBuckets([10000.0])(model):
        assert torch.equal(steps(model), plain)


def test_another_base_alone_is_the_model_of_that_base() -> None:
    model = opened("llama")
    want = torch.tensor(by_hand("llama", (0.5,))).float()[PADDED.bool()]
    with AttentionBuckets([5000.0])(model):
        assert_close(steps(model)[PADDED.bool()], want, atol=2e-4, rtol=1e-4)


def test_all_caches_follow_beams_and_drafts() -> None:
    model, ids = opened("llama"), torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    options: dict[str, Any] = {"max_new_tokens": 8}
    with AttentionBuckets(BASES)(model):
        beams = model.generate(ids, num_beams=3, num_return_sequences=3, **options)
        # Without a cache every step reads all tokens anew, so that nothing can be out of place.
        again = model.generate(ids, num_beams=3, num_return_sequences=3, use_cache=False, **options)
        drafted = model.generate(ids, prompt_lookup_num_tokens=3, **options)
        greedy = model.generate(ids, **options)
    assert torch.equal(beams, again)
    assert torch.equal(drafted, greedy)


def test_a_cache_method_within_acts_on_each_base() -> None:
    model, cut = opened("llama"), SnapKV(capacity=8, window=4)
    parts = []
    for base in BASES:
        with AttentionBuckets([base])(model), cut(model):
            parts.append(steps(model, mask=torch.ones_like(TOKENS)).double().numpy())
    each = np.stack(parts)
    weights = np.exp(each.max(-1, keepdims=True))
    want = torch.tensor((weights / weights.sum(0) * each).sum(0)).float()
    with AttentionBuckets(BASES)(model), cut(model):
        found = steps(model, mask=torch.ones_like(TOKENS))
    assert_close(found, want, atol=2e-4, rtol=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    model = opened("llama")
    plain = model(TOKENS)

    def fails(attention: Any, attend: Any) -> Any:
        calls.append(attention.layer)
        if len(calls) == 5:  # layer 1 of the second base
            raise RuntimeError("in between")
        return attend(attention)

    for method in (AttentionBuckets(), AttentionBuckets(BASES)):
        calls: list[int] = []
        with pytest.raises(RuntimeError, match="in between"), method(model), model.entered(fails):
            model(TOKENS)
        assert torch.equal(model(TOKENS), plain)
        assert model.backend.current is None
        assert not model.stack.chain.entered


def test_an_interrupted_sequence_does_not_go_on() -> None:
    model, cache, calls = opened("llama"), opened("llama").new_cache(), []

    def fails(attention: Any, attend: Any) -> Any:
        calls.append(attention.layer)
        if len(calls) == 5:
            raise RuntimeError("in between")
        return attend(attention)

    with AttentionBuckets()(model):
        with pytest.raises(RuntimeError, match="in between"), model.entered(fails):
            model(TOKENS, cache=cache)
        with pytest.raises(HeadscopeError, match="interrupted"):
            model(TOKENS[:, :1], cache=cache)


def test_a_sequence_that_began_elsewhere_is_refused() -> None:
    model, cache = opened("llama"), opened("llama").new_cache()
    model(TOKENS, cache=cache)
    with pytest.raises(HeadscopeError, match="from its first token on"), AttentionBuckets()(model):
        model(TOKENS[:, :1], cache=cache)


@pytest.mark.parametrize("bases", [(), (10000.0, 1.0), (-5.0,), (float("nan"),), (float("inf"),)])
def test_bases_that_are_none_are_refused(bases: tuple[float, ...]) -> None:
    with pytest.raises(HeadscopeError, match="above 1"):
        AttentionBuckets(bases)


def test_a_base_twice_is_refused() -> None:
    with pytest.raises(HeadscopeError, match="twice"):
        AttentionBuckets([10000.0, 10000.0])


@pytest.mark.parametrize(("name", "bases", "why"), [
    ("gpt2", None, "has none"),
    ("opt", None, "has none"),
    ("gemma3", (10000.0, 20000.0), "several bases"),
])  # fmt: skip
def test_models_that_it_does_not_fit_are_refused(name: str, bases: Any, why: str) -> None:
    with pytest.raises(HeadscopeError, match=why), AttentionBuckets(bases)(opened(name)):
        pass


def test_positions_are_decided_by_one_method_at_a_time() -> None:
    model, names = opened("llama"), "AttentionBuckets and AttentionBuckets"
    refused = pytest.raises(HeadscopeError, match=names)
    with AttentionBuckets()(model), refused, AttentionBuckets(BASES)(model):
        pass


def test_extremes_are_those_of_a_cosine() -> None:
    peaks, troughs = extremes(torch.cos(torch.arange(100) * 2 * torch.pi / 20))
    assert peaks.tolist() == [20, 40, 60, 80]
    assert troughs.tolist() == [10, 30, 50, 70, 90]
    assert cost([(peaks, troughs), (troughs, peaks)]) == 0


def test_the_search_takes_the_base_whose_waves_are_furthest_from_its_own() -> None:
    def tables(positions: Tensor, base: float | None) -> tuple[Tensor, Tensor]:
        assert base is not None
        # One pair that turns once in 20 tokens; another base only shifts where its peaks are.
        angle = (positions + (base - 100)) * 2 * torch.pi / 20
        at_zero = torch.ones_like(angle[:, :1])
        cos = torch.cat((at_zero, torch.cos(angle[:, 1:])), 1)
        return cos[..., None], cos[..., None]

    found = covering(tables, 100.0, (103.0, 110.0, 118.0), 2, 200, torch.device("cpu"))
    assert found == (100.0, 110.0)


def test_the_search_begins_with_the_models_own_base() -> None:
    model = opened("llama")
    found = AttentionBuckets.search(model, count=3, reach=100)
    assert found.bases is not None
    assert found.bases[0] == 10000
    assert len(set(found.bases)) == 3
    assert all(10000 <= base <= 25000 for base in found.bases)
    with found(model):
        assert bool(model(TOKENS).isfinite().all())
    for options, why in (({"count": 99}, "between 1 and"), ({"reach": 2}, "look further")):
        with pytest.raises(HeadscopeError, match=why):
            AttentionBuckets.search(model, **options)
    with pytest.raises(HeadscopeError, match="several bases"):
        AttentionBuckets.search(opened("gemma3"))


def test_scaled_rotations_are_scaled_for_every_base() -> None:
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    made = []
    for base in BASES:
        torch.manual_seed(0)
        config = LlamaConfig(**_SMALL, rope_parameters={**scaled, "rope_theta": base})
        made.append(AutoModelForCausalLM.from_config(config).eval())
        for parameter in made[-1].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        made[-1].load_state_dict(made[0].state_dict())
    each = np.stack([hf(TOKENS).logits.double().numpy() for hf in made])
    weights = np.exp(each.max(-1, keepdims=True))
    want = torch.tensor((weights / weights.sum(0) * each).sum(0)).float()
    model = headscope.load(made[0], tiny_tokenizer())
    with AttentionBuckets(BASES)(model):
        assert_close(model(TOKENS), want, atol=2e-4, rtol=1e-4)


_SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
