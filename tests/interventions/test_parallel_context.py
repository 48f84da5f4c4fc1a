"""Blocks of a prompt against the same tokens read alone, ranges of its pattern, and bad input."""

from typing import Any

import pytest
import torch
from conftest import opened
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.interventions.apart import _Apart
from headscope.interventions.parallel_context import ParallelContext
from headscope.model import HeadModel
from headscope.prompts.base import Prompt

TOKENS = torch.randint(3, 97, (1, 20), generator=torch.Generator().manual_seed(29))


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt_neox"])
def test_a_block_is_read_as_if_alone(name: str) -> None:
    """Logits inside a block are those of the block's tokens, or of the prefix with them."""
    model = opened(name)
    # A window counts tokens of the prompt, so that a prefix would be further away than alone.
    for start, shared, positions in (
        ((0, False, "shared"),)
        if name == "gemma3"
        else ((0, False, "shared"), (3, True, "shared"), (0, False, None))
    ):
        blocks = ((start, 7), (7, 12), (12, 15))
        kind = {"positions": positions} if positions else {}
        with ParallelContext(blocks, shared_sink=shared, **kind)(model):
            found = model(TOKENS)
        for first, stop in blocks:
            prefix = TOKENS[:, : start if shared else 0]
            alone = model(torch.cat((prefix, TOKENS[:, first:stop]), 1))[:, prefix.shape[1] :]
            # Without a prefix positions matter by their differences alone.
            assert_close(found[:, first:stop], alone, atol=1e-4, rtol=1e-4)


def test_one_block_with_its_prefix_changes_nothing(llama: HeadModel) -> None:
    with ParallelContext((4, 12))(llama):
        found = llama(TOKENS)
    assert_close(found, llama(TOKENS), atol=1e-5, rtol=1e-5)
    with ParallelContext((4, 12), shared_sink=False)(llama):
        lost = llama(TOKENS)
    assert_close(lost[:, :4], llama(TOKENS)[:, :4], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(lost[:, 4:], llama(TOKENS)[:, 4:], atol=1e-2)


def test_names_become_the_ranges_of_a_prompt(llama: HeadModel) -> None:
    spans = {"doc_0": (2, 6), "doc_1": (7, 12)}
    prompt = Prompt(token_ids=tuple(TOKENS[0].tolist()), spans=spans)
    method, same = ParallelContext().prepared(llama, prompt)
    assert same == prompt
    assert method == ParallelContext(((2, 6), (7, 12)))
    with ParallelContext()(llama), pytest.raises(HeadscopeError, match="by name"):
        llama(TOKENS)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("edges", [(0, 3, 7), (2, 5, 6, 9)])
def test_ranges_hold_every_key_that_is_seen(edges: tuple[int, ...], shared: bool) -> None:
    pattern, at = _Apart(edges, shared), torch.arange(12)
    seen = pattern.mask(at[:, None], at[None]) & (at[:, None] >= at)
    for first in range(12):
        for last in range(first, 12):
            inside = torch.zeros(12, dtype=torch.bool)
            for start, stop in pattern.key_ranges(first, last):
                inside[start:stop] = True
            assert not bool((seen[first : last + 1].any(0) & ~inside).any())
    assert bool(seen.diagonal().all())


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_generate_says_what_a_whole_pass_says(backend: str) -> None:
    model, mask = opened("llama", backend), torch.ones(2, 20, dtype=torch.long)
    mask[0, :4] = 0
    tokens = TOKENS.repeat(2, 1)
    method = ParallelContext(((1, 5), (5, 9), (10, 13)), selective=1, window=2, positions="shared")
    with method(model):
        said = model.generate(tokens, attention_mask=mask, max_new_tokens=4)
        whole = torch.cat((mask, torch.ones_like(said)), 1)
        logits = model(
            torch.cat((tokens, said), 1), attention_mask=whole, prompt_length=mask.sum(1)
        )
    ended = (said == model.tokenizer.eos_token_id).cumsum(1) - (said == 2).long() > 0
    assert torch.equal(logits[:, 19:-1].argmax(-1)[~ended], said[~ended])


def test_drafts_are_taken_back(llama: HeadModel) -> None:
    prompt = TOKENS[:, :9].repeat(1, 3)
    with ParallelContext(((1, 9), (9, 18)), selective=1)(llama):
        plain = llama.generate(prompt, max_new_tokens=9)
        drafted = llama.generate(prompt, max_new_tokens=9, prompt_lookup_num_tokens=3)
    assert torch.equal(plain, drafted)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (lambda: ParallelContext(((1, 5), (4, 8))), "overlap at token 4"),
        (lambda: ParallelContext((1, 5), temperature=0.0), "a temperature above 0, not 0.0"),
        (lambda: ParallelContext((1, 5), selective=0), "selective to be a whole number"),
        (lambda: ParallelContext((1, 50)), "ends at token 50, and the prompt has 20"),
        (lambda: ParallelContext(((1, 9), (9, 20)), selective=1), "No token of the prompt stands"),
    ],
)
def test_bad_input_is_refused(llama: HeadModel, method: Any, said: str) -> None:
    with pytest.raises(HeadscopeError, match=said), method()(llama):
        llama(TOKENS)


def test_positions_that_are_not_rotated_cannot_be_shared() -> None:
    with (
        pytest.raises(HeadscopeError, match="no RoPE whose positions could be shared"),
        ParallelContext((1, 5), positions="shared")(opened("gpt2")),
    ):
        pass
