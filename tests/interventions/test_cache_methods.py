"""Edges of the methods that live with fewer keys: short prompts, chunks, no RoPE, bad sizes."""

import dataclasses
from importlib import import_module
from typing import Any

import pytest
import torch
from conftest import opened
from torch import Tensor

from headscope.attention import Attention
from headscope.catalog import interventions
from headscope.engines import Attended, dense
from headscope.errors import HeadscopeError
from headscope.interventions.duo_attention import DuoAttention
from headscope.interventions.lm_infinite import LmInfinite
from headscope.interventions.razor_attention import RazorAttention
from headscope.interventions.sir_llm import SirLLM
from headscope.interventions.snap_kv import SnapKV
from headscope.interventions.streaming_llm import StreamingLLM
from headscope.interventions.task_kv import TaskKV
from headscope.model import HeadModel

TOKENS = torch.randint(3, 97, (1, 40), generator=torch.Generator().manual_seed(23))


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
@pytest.mark.parametrize("name", sorted(n for n, k in interventions().items() if k.site == "cache"))
def test_generate_says_what_steps_say(name: str, backend: str) -> None:
    """Behind the same prompts, one of them padded, on every backend."""
    model, other = opened("llama"), opened("llama", backend)
    tokens, mask = TOKENS[:, :36].reshape(2, 18), torch.ones(2, 18, dtype=torch.long)
    mask[0, :5] = 0
    for method in import_module(f"altered.{name}").methods(model):
        with method(other):
            said = other.generate(tokens, attention_mask=mask, max_new_tokens=5)
        whole = torch.cat((mask, torch.ones_like(said)), 1)
        with method(model):
            options = {"cache": model.new_cache(), "prompt_length": mask.sum(1)}
            logits = model(tokens, attention_mask=mask, **options)
            for step in range(said.shape[1]):
                going = ~(said[:, :step] == model.tokenizer.eos_token_id).any(1)
                best = logits[:, -1].argmax(-1)
                assert torch.equal(said[going, step], best[going]), method
                logits = model(said[:, [step]], attention_mask=whole[:, : 19 + step], **options)


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


def test_sir_llm_generates_what_whole_logits_would_give(llama: HeadModel) -> None:
    """generate keeps the last row's logits alone; steps here keep all of the prompt's."""
    method = SirLLM(1, 2, 4)
    with method(llama):
        said = llama.generate(TOKENS[:, :18], max_new_tokens=8)[0].tolist()
        cache = llama.new_cache()
        logits = llama(TOKENS[:, :18], cache=cache)
        for token in said[:-1]:
            assert token == int(logits[0, -1].argmax())
            logits = llama([token], cache=cache)
    assert said[-1] == int(logits[0, -1].argmax())
    assert said != llama.generate(TOKENS[:, :18], max_new_tokens=8)[0].tolist()


def test_sir_llm_forgets_by_decay(llama: HeadModel) -> None:
    """With little decay the surprising tokens stay, with much of it the latest."""
    nats, at = torch.tensor([[0.0, 9, 1, 8, 1, 1, 1, 1]]), torch.arange(8)[None]
    for decay, kept in ((1.0, [1, 3, 6, 7]), (0.01, [4, 5, 6, 7])):
        still = SirLLM(0, 2, 2, decay)._still(nats, at, at >= 0)
        assert still[0].nonzero()[:, 0].tolist() == kept


def test_sir_llm_needs_the_start_of_a_sequence(llama: HeadModel) -> None:
    cache = llama.new_cache()
    llama(TOKENS[:, :8], cache=cache)
    with SirLLM()(llama), pytest.raises(HeadscopeError, match="from its start"):
        llama(TOKENS[:, 8:9], cache=cache)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "opt"])
def test_sir_llm_knows_how_likely_tokens_were(name: str) -> None:
    """With soft-caps, biases and tied embeddings; read in two passes, the first row of each too."""
    model, method, runs = opened(name), SirLLM(2, 20, 10), []
    with method(model), model.observed(lambda attended: runs.append(attended.attention.run)):
        cache = model.new_cache()
        model(TOKENS[:, :9], cache=cache, last=1)
        model(TOKENS[:, 9:16], cache=cache, last=1)
        nats = runs[-1].state[method]["nats"]
    logp = model(TOKENS[:, :16])[:, :-1].log_softmax(-1)
    want = -logp.gather(-1, TOKENS[:, 1:16, None])[..., 0]
    assert torch.allclose(nats[:, 1:], want, atol=1e-3)
    assert float(nats[0, 0]) == 0


def test_task_kv_with_all_heads_far_is_a_bit_exact_no_op(llama: HeadModel) -> None:
    def steps() -> Tensor:
        cache = llama.new_cache()
        first = llama(TOKENS[:, :18], cache=cache, prompt_length=18)
        return torch.cat((first, llama(TOKENS[:, 18:19], cache=cache, prompt_length=18)), 1)

    with llama.entered(lambda attention, attend: attend(attention)):
        plain = steps()
    with TaskKV(1.0, 1, 1, 1)(llama):
        assert torch.equal(steps(), plain)
    with TaskKV(0.5, 1, 1, 1)(llama):
        assert not torch.equal(steps(), plain)


def test_the_mean_token_stands_for_equal_keys_exactly(llama: HeadModel) -> None:
    """Where all dropped keys and values are alike, nothing is lost but without the token."""
    attention: list[Attention] = []
    with llama.observed(lambda attended: attention.append(attended.attention)):
        cache = llama.new_cache()
        llama(TOKENS[:, :18], cache=cache, prompt_length=18)
        llama(TOKENS[:, 18:19], cache=cache, prompt_length=18)
    step = attention[-1]
    k, v = (x.clone() for x in (step.k, step.v))
    k[:, :, 2:14], v[:, :, 2:14] = k[:, :, 2:3], v[:, :, 2:3]
    alike = step.with_k(k).with_v(v)
    found = RazorAttention((), 2, 5, 20).attend(alike, dense)
    assert torch.allclose(found.z, alike.z(), atol=1e-5)
    assert torch.allclose(found.lse, alike.lse(), atol=1e-5)
    lost = RazorAttention((), 2, 5, 20, compensate=False).attend(alike, dense)
    assert not torch.allclose(lost.z, alike.z(), atol=1e-2)


def test_the_limit_of_a_distance_is_reached_by_all_sinks_alike(llama: HeadModel) -> None:
    """Up to the limit nothing is moved."""
    found = []
    for limit in (None, 12, 39):
        with LmInfinite(2, 6, limit)(llama):
            found.append(llama(TOKENS))
    masked = StreamingLLM(2, 6, rotate=False)
    with masked(llama):
        plain = llama(TOKENS)
    assert torch.allclose(found[2], plain, atol=1e-4)
    assert torch.allclose(found[1][:, :13], plain[:, :13], atol=1e-4)
    assert not torch.allclose(found[0], plain, atol=1e-2)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: StreamingLLM(-1, 4), "sink to be a whole number of tokens, 0 or more"),
        (lambda: StreamingLLM(1, 0), "window to be a whole number of tokens, 1 or more"),
        (lambda: SnapKV(32, 32), "capacity to be a whole number of tokens, 33 or more"),
        (lambda: SnapKV(64, 32, 4), "an odd number of keys, not 4"),
        (lambda: LmInfinite(2, 8, 7), "limit to be a whole number of tokens, 8 or more"),
        (lambda: RazorAttention((), divisor=1), "a whole divisor of 2 or more"),
        (lambda: SirLLM(decay=0.0), "a decay above 0 and up to 1"),
        (lambda: TaskKV(1.5), "between 0 and 1, not 1.5"),
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
