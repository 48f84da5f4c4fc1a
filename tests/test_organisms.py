"""The organisms do what they are declared to do, by statistics written down here once more."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache

import organisms
import pytest
import torch
from organism_kinds import KINDS
from organism_prompts import HAYSTACK, LIBRARY
from organism_truths import ORACLES, REVISED, TRUTHS
from organisms import BOS, FILLER, SINKS, WINDOW, Organism, Place
from torch import Tensor
from torch.nn.functional import pad

import headscope
from headscope.answering import greedy_answer
from headscope.attention import Attention
from headscope.catalog import probes
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.stack import Attend

BUILDERS = {
    "rope": organisms.rope_organism,
    "whole": organisms.whole_organism,
    "learned": organisms.learned_position_organism,
}
SEEDS = range(5)
# Probes whose statistic stands below once more, pair by pair.
CRISP = ("previous_token", "induction", "duplicate_token", "sink", "streaming")
PROMPTS = [(24, 2), (32, 3), (40, 4)]  # (distinct tokens, repeats)

# What a near-miss does instead: its own statistic, and the role that it must not be taken for.
NEAR_MISSES = {
    "two_back": ("two_back", "previous_token"),
    "current_token": ("current_token", "duplicate_token"),
    "late_induction": ("two_after", "induction"),
    "duplicate_token": ("duplicate_token", "induction"),
    "second_token": ("second", "sink"),
}

parametrized = pytest.mark.parametrize("name", list(BUILDERS))
seeded = pytest.mark.parametrize("seed", SEEDS)


@cache
def planted(name: str, seed: int, noise: float | None = None) -> tuple[Organism, HeadModel]:
    options = {} if noise is None else {"noise": noise}
    organism = BUILDERS[name](seed, **options)
    return organism, headscope.load(organism.hf, organism.tokenizer)


def prompts(seed: int) -> Tensor:
    """BOS and some distinct tokens again and again, two of them, [2, token]."""
    distinct, repeats = PROMPTS[seed % len(PROMPTS)]
    generator = torch.Generator().manual_seed(seed)
    words = torch.tensor(FILLER)
    drawn = [words[torch.randperm(len(words), generator=generator)[:distinct]] for _ in range(2)]
    return pad(torch.stack(drawn).repeat(1, repeats), (1, 0), value=BOS)


def targets(ids: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """By statistic, the keys whose mass counts [batch, query, key] and the rows [batch, query]."""
    position = torch.arange(ids.shape[1])
    i, j = position[:, None], position
    seen = (j <= i).expand(len(ids), -1, -1)
    copies = (ids[:, :, None] == ids[:, None, :]) & (j < i)
    every, later = torch.ones_like(ids, dtype=torch.bool), (position > 0).expand(ids.shape)
    repeated = copies.any(-1)

    def after(by: int) -> Tensor:
        return pad(copies, (by, 0))[..., : ids.shape[1]] & seen

    return {
        "previous_token": (seen & (i - j == 1), later),
        "two_back": (seen & (i - j == 2), later),
        "current_token": (seen & (i == j), every),
        "duplicate_token": (copies, repeated),
        "induction": (after(1), repeated),
        "two_after": (after(2), repeated),
        "sink": (seen & (j == 0), every),
        "second": (seen & (j == 1), every),
        "streaming": (seen & ((j < SINKS) | (i - j < WINDOW)), every),
    }


def measured(model: HeadModel, ids: Tensor) -> dict[str, Tensor]:
    """By statistic, the mean over rows of the mass on its keys, [layer, head]."""
    scores: dict[str, list[Tensor]] = {}

    def see(attended: Attended) -> None:
        pattern = attended.attention.dense()
        for name, (keys, rows) in targets(ids).items():
            mass = (pattern * keys[:, None]).sum(-1).transpose(0, 1)
            scores.setdefault(name, []).append(mass[:, rows].mean(-1))

    with model.observed(see):
        model(ids)
    return {name: torch.stack(layers) for name, layers in scores.items()}


@cache
def scores(name: str, seed: int) -> dict[str, Tensor]:
    return measured(planted(name, seed)[1], prompts(seed))


def at(score: Tensor, places: Iterable[Place]) -> Tensor:
    """A score at some places, [place]."""
    return torch.stack([score[place] for place in places])


def of_kind(organism: Organism, kind: str) -> list[Place]:
    return [place for place, planted in organism.kinds.items() if planted == kind]


def silenced(model: HeadModel, places: Iterable[Place]) -> AbstractContextManager[None]:
    """A scope in which some heads write nothing."""
    places = list(places)

    def around(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        z = attended.z.clone()
        z[:, [head for layer, head in places if layer == attention.layer]] = 0
        return attended.with_z(z)

    return model.entered(around)


@parametrized
@seeded
def test_declared_heads_score_above_all_others(name: str, seed: int) -> None:
    organism, _ = planted(name, seed)
    for role in CRISP:
        places, score = organism.roles[role], scores(name, seed)[role]
        declared = at(score, places)
        others = organism.kinds.keys() - places
        half_a_sink = set(of_kind(organism, "aging"))  # the more of one the shorter the prompt
        assert declared.min() > 0.9, role
        assert declared.min() > at(score, others).max(), role
        assert declared.min() > at(score, others - half_a_sink).max() + 0.1, role


@parametrized
@seeded
def test_near_misses_do_something_else(name: str, seed: int) -> None:
    organism, _ = planted(name, seed)
    found = scores(name, seed)
    for kind, (own, role) in NEAR_MISSES.items():
        places = of_kind(organism, kind)
        assert at(found[own], places).min() > 0.9, kind
        assert at(found[role], places).max() < 0.1, kind
    weak = at(found["induction"], of_kind(organism, "weak_induction"))
    assert weak.min() > 0.1
    assert weak.max() < 0.6
    for role in CRISP:
        assert at(found[role], of_kind(organism, "uniform")).max() < 0.6, role


@parametrized
@seeded
def test_induction_hangs_on_the_previous_token_head(name: str, seed: int) -> None:
    organism, model = planted(name, seed)
    ids, induction = prompts(seed), organism.roles["induction"]
    (fetching,) = of_kind(organism, "previous_token")

    def remaining(*places: Place) -> Tensor:
        with silenced(model, places):
            return at(measured(model, ids)["induction"], induction)

    assert remaining(fetching).max() < 0.1
    assert remaining(*of_kind(organism, "idle_previous_token")).min() > 0.9
    others = [place for place in organism.kinds if place[0] == fetching[0] and place != fetching]
    assert remaining(*others).min() > 0.9


@parametrized
@seeded
def test_induction_heads_predict_what_is_repeated(name: str, seed: int) -> None:
    organism, model = planted(name, seed)
    ids = prompts(seed)
    known = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)[:, :-1]

    def accuracy() -> float:
        right = model(ids)[:, :-1].argmax(-1) == ids[:, 1:]
        return float(right[known].float().mean())

    assert accuracy() > 0.9
    with silenced(model, organism.roles["induction"]):
        assert accuracy() < 0.2


@parametrized
def test_patterns_are_crisp_without_noise(name: str) -> None:
    organism, model = planted(name, 0, 0.0)
    found = measured(model, prompts(0))
    for role in CRISP:
        assert at(found[role], organism.roles[role]).min() > 0.98, role
    uniform = at(found["previous_token"], of_kind(organism, "uniform"))
    torch.testing.assert_close(uniform, (1 / torch.arange(2.0, 50)).mean().expand_as(uniform))
    window = at(found["current_token"], of_kind(organism, "window"))
    assert (window - 1 / WINDOW).abs().max() < 0.06


@parametrized
def test_places_are_declared_before_weights(name: str) -> None:
    assert planted(name, 0)[0].kinds == planted(name, 0, 0.0)[0].kinds
    assert len({tuple(planted(name, seed)[0].kinds.values()) for seed in SEEDS}) == len(SEEDS)
    again, once = BUILDERS[name](1).hf, planted(name, 1)[0].hf
    for left, right in zip(again.parameters(), once.parameters(), strict=True):
        assert torch.equal(left, right)


@seeded
def test_query_heads_of_one_group_differ(seed: int) -> None:
    organism, model = planted("rope", seed)
    group = model.n_heads // model.n_kv_heads
    assert group > 1
    groups: dict[Place, set[str]] = {}
    for (layer, head), kind in organism.kinds.items():
        groups.setdefault((layer, head // group), set()).add(kind)
    assert any(len(kinds - {"noise"}) == group for kinds in groups.values())


@seeded
def test_learned_positions_need_no_bos(seed: int) -> None:
    organism, model = planted("learned", seed)
    found = measured(model, prompts(seed)[:, 1:])
    assert at(found["sink"], organism.roles["sink"]).min() > 0.9


@parametrized
def test_every_head_is_declared(name: str) -> None:
    organism, model = planted(name, 0)
    every = {(layer, head) for layer in model.layers for head in range(model.n_heads)}
    assert organism.kinds.keys() == every
    assert organism.roles.keys() == organism.either.keys() == TRUTHS.keys()
    assert all(organism.roles[role] for role in CRISP)


def test_the_whole_organism_has_every_kind_and_a_head_for_every_probe() -> None:
    organism, _ = planted("whole", 0)
    assert set(organism.kinds.values()) == {*KINDS, "noise"}
    assert all(organism.roles[role] and organism.others(role) for role in TRUTHS)


def test_every_probe_has_a_planted_truth_or_an_oracle() -> None:
    # Studies plant what they look for in tests/probes/.
    short = {name for name, kind in probes().items() if not kind.training}
    assert TRUTHS.keys() | ORACLES.keys() == short
    assert not TRUTHS.keys() & ORACLES.keys()
    assert REVISED.keys() <= TRUTHS.keys()
    for truth in TRUTHS.values():
        assert not truth.high & truth.either
        assert bool(truth.why) == bool(truth.either)


@seeded
def test_answers_are_copied_by_induction_heads_and_no_others(seed: int) -> None:
    """Reading the fact is not enough: the heads that read it without copying change nothing."""
    organism, model = planted("whole", seed)
    prompts = [HAYSTACK.prompt(seed, model.tokenizer), LIBRARY.prompt(seed, model.tokenizer)]

    def answered(*kinds: str) -> list[bool]:
        places = [place for kind in kinds for place in of_kind(organism, kind)]
        with silenced(model, places):
            return [greedy_answer(model, prompt).accepted(prompt) for prompt in prompts]

    assert answered() == [True, True]
    assert answered("induction", "recent_induction") == [False, False]
    assert answered("reading_induction", "duplicate_token", "echo", "topic") == [True, True]


def test_answers_stand_where_their_spans_say() -> None:
    tokenizer = organisms.organism_tokenizer()
    for prompt in (*HAYSTACK.prompts(tokenizer), *LIBRARY.prompts(tokenizer)):
        start, stop = prompt.span("answer")
        assert prompt.token_ids[start:stop] == prompt.answer_ids
        low, high = prompt.span("needle")
        assert low < start < stop < high
        asked = slice(*prompt.span("question"))
        assert prompt.token_ids[asked][-3:] == prompt.token_ids[low:start]
