"""Prompts of sentences, and transformers' own patterns of them, for tests of shorter prompts."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from conftest import opened
from hypothesis import strategies as st
from interventions.ordered import reference
from tiny import VOCAB
from torch import Tensor

from headscope.interventions.sentinel_classifier import (
    SentinelClassifier,
)
from headscope.prompts.base import Prompt

LENGTHS, GAPS = (4, 6, 3, 7, 5), (3, 1, 0, 2, 1)  # of sentences, and of what stands before them


SIZES = (4, 7, 3, 9, 6)  # a gap belongs to the sentence behind it, but for the first


MODELS = ("llama", "qwen3", "gpt2", "mistral")


def prompt(seed: int, needle: int = 2) -> Prompt:
    """Five sentences of random words with text around them, and a question behind."""
    spans, at = {}, 0
    for number, (gap, length) in enumerate(zip(GAPS, LENGTHS, strict=True)):
        spans[f"sentence_{number}"] = (at + gap, at + gap + length)
        at += gap + length
    start, stop = spans[f"sentence_{needle}"]
    spans |= {"needle": (start, stop), "answer": (stop - 1, stop), "question": (at + 1, at + 4)}
    drawn = torch.randint(3, VOCAB, (at + 6,), generator=torch.Generator().manual_seed(seed))
    return Prompt(tuple(drawn.tolist()), spans, "w5", (5,))


def dense(architecture: str, ids: Sequence[int]) -> Tensor:
    """Every pattern, [layer, head, query, key]."""
    with torch.no_grad():
        found = reference(architecture)(torch.tensor([list(ids)]), output_attentions=True)
    return torch.cat(found.attentions).double()


@cache
def classifier(name: str = "llama") -> SentinelClassifier:
    prompts = [prompt(seed, needle=seed % 5) for seed in range(10)]
    return SentinelClassifier.train(opened(name), prompts)


def kept(found: Prompt, before: Prompt) -> list[int]:
    """The numbers of the sentences that were kept, where every token is another."""
    spans = before.numbered("sentence")
    return [i for i, (start, _) in enumerate(spans) if before.token_ids[start] in found.token_ids]


def distinct() -> Prompt:
    return dataclasses.replace(prompt(0), token_ids=tuple(range(3, 3 + len(prompt(0)))))


@st.composite
def layouts(draw: Any) -> tuple[int, dict[str, tuple[int, int]], list[int]]:
    """A prompt's length and spans, and the places of the sentences to keep."""
    n = draw(st.integers(1, 6))
    spans, at = {}, draw(st.integers(0, 2))
    for number in draw(st.permutations(range(n))):
        start = at + draw(st.integers(0, 3))
        at = start + draw(st.integers(1, 5))
        spans[f"sentence_{number}"] = (start, at)
        a, b = sorted(draw(st.tuples(st.integers(start, at), st.integers(start, at))))
        if a < b:
            spans[f"part_{number}"] = (a, b)
    length = at + draw(st.integers(1, 4))
    a, b = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
    spans |= {"anywhere": (a, b)} if a < b else {}
    spans["question"] = (at, length)
    some = draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    return length, spans, some


def laid_out(length: int, spans: Any) -> Prompt:
    """A prompt in which every token is another."""
    return Prompt(tuple(range(3, 3 + length)), spans)
