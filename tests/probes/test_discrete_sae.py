"""The discrete autoencoder: planted heads, its definition by hand, and what it refuses."""

import dataclasses
import itertools

import pytest
from organism_prompts import HAYSTACK
from organisms import Organism, rope_organism, whole_organism
from torch import Tensor

import headscope
from headscope.probes.discrete_sae import DiscreteSae
from headscope.probes.study import Work

# With the needle they say what follows the question's last word, or what follows that; without
# it they rest on the start.
HIGH = {
    "induction", "recent_induction", "reading_induction", "suppressing_induction", "late_induction",
}  # fmt: skip
EITHER = {
    "weak_induction": "its logit is small",
    "favourite_topic": "its topic may be that of a needle, or of what replaces it",
    "topic": "without the needle it reads the question's own words, and says the same topic",
    "duplicate_token": "without the needle it reads the question's last word or the start, about "
    "evenly; the word says what the needle's copy of it says",
    "echo": "as duplicate_token",
}
SMALL = {"features": 60, "steps": 60, "batch": 256, "lr": 0.01, "repeats": 2}


def auc(organism: Organism, score: Tensor) -> float:
    high = [float(score[at]) for at, kind in organism.kinds.items() if kind in HIGH]
    low = [float(score[at]) for at, kind in organism.kinds.items() if kind not in HIGH | {*EITHER}]
    pairs = list(itertools.product(high, low))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def area(organism: Organism, seed: int, samples: int) -> float:
    model = headscope.load(organism.hf, organism.tokenizer)
    family = dataclasses.replace(HAYSTACK, samples=samples, seed=seed, sentences=7, length=7)
    probe = DiscreteSae(prompts=family, removed=("needle",), seed=seed, **SMALL)
    found = probe.study(model, family.prompts(model.tokenizer), Work())
    return auc(organism, found["discrete_sae"].mean(0))


@pytest.mark.parametrize("seed", range(20))
def test_planted_heads_that_need_the_needle_are_found(seed: int) -> None:
    assert area(rope_organism(seed), seed, 10) >= 0.95


@pytest.mark.parametrize("seed", [20, 21])
def test_planted_heads_are_found_among_all_kinds_and_noise(seed: int) -> None:
    assert area(whole_organism(seed, noise=0.2), seed, 12) >= 0.95
