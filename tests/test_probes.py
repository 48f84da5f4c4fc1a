"""Probes against planted heads, against dense patterns, and on every backend."""

import dataclasses
from pathlib import Path

import definitions
import numpy as np
import pytest
import torch
from conftest import opened
from definitions import REPEATED, as_measured
from organism_truths import planted_probes
from organisms import learned_position_organism, whole_organism

import headscope
from headscope.answering import greedy_answer, rouge1_recall
from headscope.attention import Attention
from headscope.catalog import families, patterns, probes
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.probes.copies import copies
from headscope.probes.induction import Induction
from headscope.probes.retrieval import Retrieval
from headscope.probes.streaming import Streaming
from headscope.prompts import Needle, Prompt, Repeated

BUILDERS = {"whole": whole_organism, "learned": learned_position_organism}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("builder", BUILDERS)
def test_planted_heads_are_found(builder: str, seed: int) -> None:
    organism = BUILDERS[builder](seed)
    model = headscope.load(organism.hf, organism.tokenizer)
    chosen = planted_probes(model, set(organism.kinds.values()))
    head_map = headscope.scan(model, chosen, seed=seed)
    assert all(all(family.accepted) for family in head_map.info.families.values())
    for probe in chosen:
        area = organism.auc(probe.name, torch.from_numpy(head_map[probe.name].mean()))
        assert area is None or area >= 0.95, probe.name


# Studies have files of their own: see test_every_study_has_tests_of_its_own.
SHORT = [name for name, kind in probes().items() if not kind.training]


@pytest.mark.parametrize("probe", SHORT)
def test_scores_equal_their_definition_on_a_dense_pattern(probe: str, architecture: str) -> None:
    model = opened(architecture)
    if not definitions.fits(probe, model):
        with pytest.raises(HeadscopeError, match=probe):
            probes()[probe]().check_model(model)
        return
    measured, written = as_measured(probes()[probe]), definitions.module(probe)
    measured.check_model(model)
    if measured.alters:
        _, prompt = definitions.a_prompt()
        found, want = measured.read(model, prompt), written.define(model, prompt)
        assert found.keys() == want.keys() == set(measured.outputs())
        for name, values in found.items():
            torch.testing.assert_close(values.float(), want[name].float(), atol=1e-4, rtol=1e-3)
        return
    for case in definitions.cases(model):
        attended = headscope.engines.Attended(case.attention.z(), case.attention)
        found, want = measured.measure(attended, case.reading), written.define(case)
        assert found.keys() == want.keys() == set(measured.outputs())
        for name, values in found.items():
            expected = torch.as_tensor(want[name], dtype=torch.float32)
            torch.testing.assert_close(values.float(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_scores_are_the_same_on_every_backend(architecture: str, backend: str) -> None:
    chosen = [
        as_measured(kind)
        for name, kind in probes().items()
        if name in SHORT and kind.rows != "answer"
        if definitions.fits(name, opened(architecture))
    ]
    maps = [
        headscope.scan(opened(architecture, name), chosen, samples=2) for name in ("hf", backend)
    ]
    for name, score in maps[0].scores.items():
        np.testing.assert_allclose(score.values, maps[1][name].values, atol=1e-4)


@pytest.mark.parametrize("name", list(probes()))
def test_every_probe_tells_what_it_is(name: str) -> None:
    probe = probes()[name]()
    assert "score" in (probe.__doc__ or "") or "=" in (probe.__doc__ or "")
    assert probe.paper
    if not probe.training:
        written = Probe.read if probe.alters else Probe.measure
        assert getattr(type(probe), written.__name__) is not written
    assert probe.prompts.name in families()
    assert hash(probe) == hash(probes()[name]())
    assert set(patterns()) >= {"full", "streaming"}


@pytest.mark.parametrize("name", [name for name in probes() if name not in SHORT])
def test_every_study_has_tests_of_its_own(name: str) -> None:
    """They train: what is planted for one is not a prompt's worth of work for the others."""
    written = (Path(__file__).parent / "probes" / f"test_{name}.py").read_text()
    assert "def test_planted" in written


def reading(model: headscope.HeadModel, prompt: Prompt) -> tuple[list[Attention], Reading]:
    """Every layer's attention and the reading, with the tokens after the prompt as its response."""
    ids = torch.tensor([*prompt.token_ids, *prompt.answer_ids])
    rows = torch.arange(len(prompt) - 1, len(ids) - 1)
    seen: list[Attention] = []
    with model.observed(lambda a: seen.append(a.attention)):
        model(ids[None])
    return seen, Reading(prompt, model, ids, torch.tensor(prompt.answer_ids), rows)


def test_a_probe_reads_the_whole_pass_as_it_reads_the_answer_alone() -> None:
    """Rows that made the answer, from a pass over them alone and from one over everything."""
    model = opened("llama")
    ids = tuple(range(3, 60))
    prompt = Prompt(ids, {"needle": (5, 20), "answer": (9, 13)}, "w12 w13", (12, 13))
    answer = greedy_answer(model, prompt)
    full = dataclasses.replace(prompt, answer_ids=tuple(answer.token_ids.tolist()))
    attentions, note = reading(model, full)
    whole = [
        Retrieval().measure(headscope.engines.Attended(a.z(), a), note)["retrieval"]
        for a in attentions
    ]
    cache = answer.cache
    cache.crop(len(ids) - 1 - cache.get_seq_length())
    rows = torch.arange(len(answer.token_ids))
    seen = []
    with model.observed(seen.append):
        model(note.token_ids[None, len(ids) - 1 : -1], cache=cache)
    tail = [
        Retrieval().measure(a, dataclasses.replace(note, answer_rows=rows))["retrieval"]
        for a in seen
    ]
    torch.testing.assert_close(torch.stack(whole), torch.stack(tail))


def test_copies_are_the_places_of_every_repeated_token() -> None:
    tokens = torch.tensor([5, 7, 5, 5, 7, 9, 5, 5])
    found = [[place for place in row if place >= 0] for c in copies(tokens) for row in c.tolist()]
    assert sorted(found) == [[0, 2, 3, 6, 7], [1, 4]]
    assert [c.tolist() for c in copies(torch.tensor([3, 4, 3]))] == [[[0, 2, -1, -1]]]
    for most in range(2, 20):
        (places,) = copies(torch.full((most,), 7))
        assert [place for place in places[0].tolist() if place >= 0] == list(range(most))
    with pytest.raises(HeadscopeError, match="earlier copy"):
        copies(torch.arange(4))


@pytest.mark.parametrize(
    ("said", "expected", "recall"),
    [
        ("The code is 48213.", "48213", 1.0),
        ("The code is 48214.", "48213", 0.0),
        ("repairs old clocks", "repairs old clocks in the attic", 0.5),
        ("clocks clocks clocks", "clocks and clocks", 2 / 3),
        ("密码是灯", "密码是灯笼", 0.8),
        ("", "anything", 0.0),
    ],
)
def test_rouge_recall_counts_words_once_each(said: str, expected: str, recall: float) -> None:
    assert rouge1_recall(said, expected) == pytest.approx(recall)


def test_a_span_that_is_missing_is_named(llama: headscope.HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="'retrieval' needs a span 'answer'"):
        headscope.scan(llama, [Retrieval(prompts=Repeated(samples=1, block=5, times=2))])


def test_too_short_a_prompt_for_the_window_is_refused(llama: headscope.HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="longer prompts"):
        headscope.scan(llama, [Streaming(prompts=Repeated(samples=1, block=5, times=2))])


def test_a_model_that_never_answers_gets_no_scores(llama: headscope.HeadModel) -> None:
    silent = Needle(samples=2, lengths=(90,), chat=False)
    with pytest.raises(HeadscopeError, match="answered none of the prompts"):
        headscope.scan(llama, [Retrieval(prompts=silent)])
    both = headscope.scan(
        llama, [Retrieval(prompts=silent), Induction(prompts=REPEATED)], samples=2
    )
    assert list(both.scores) == ["induction"]
    assert both.info.families["needle-0"].accepted == [False, False]
