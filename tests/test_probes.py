"""Probes against planted heads, against dense patterns, and on every backend."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from conftest import opened
from organisms import SINKS, WINDOW, learned_position_organism, rope_organism
from sklearn.metrics import roc_auc_score
from tiny import CONFIGS

import headscope
from headscope.answering import greedy_answer, rouge1_recall
from headscope.attention import Attention
from headscope.catalog import families, patterns, probes
from headscope.errors import HeadscopeError
from headscope.patterns import Streaming as StreamingPattern
from headscope.probes.base import Probe, Reading
from headscope.probes.copies import copies
from headscope.probes.induction import Induction
from headscope.probes.retrieval import Retrieval
from headscope.probes.streaming import Streaming
from headscope.prompts import Needle, Prompt, Repeated

BUILDERS = {"rope": rope_organism, "learned": learned_position_organism}
REPEATED = Repeated(samples=3, block=30, times=4)


def planted(name: str) -> Probe:
    """A probe as it is measured on organisms: on repeated tokens, with the organism's window."""
    probe = probes()[name](prompts=REPEATED)
    if isinstance(probe, Streaming):
        probe = dataclasses.replace(probe, pattern=StreamingPattern(SINKS, WINDOW))
    return probe


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("builder", BUILDERS)
def test_planted_heads_are_found(builder: str, seed: int) -> None:
    organism = BUILDERS[builder](seed)
    model = headscope.load(organism.hf, organism.tokenizer)
    head_map = headscope.scan(model, [planted(role) for role in organism.roles], seed=seed)
    for role, heads in organism.roles.items():
        truth = np.array([head in heads for head in head_map.heads()])
        score = head_map[role].mean().ravel()
        assert roc_auc_score(truth, score) >= 0.95, role


def reading(model: headscope.HeadModel, prompt: Prompt) -> tuple[list[Attention], Reading]:
    """Every layer's attention and the reading, with the tokens after the prompt as its response."""
    ids = torch.tensor([*prompt.token_ids, *prompt.answer_ids])
    rows = torch.arange(len(prompt) - 1, len(ids) - 1)
    seen: list[Attention] = []
    with model.observed(lambda a: seen.append(a.attention)):
        model(ids[None])
    return seen, Reading(prompt, model, ids, torch.tensor(prompt.answer_ids), rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_their_definition_on_a_dense_pattern(name: str) -> None:
    model = opened(name)
    tokens = torch.randint(3, 20, (44,), generator=torch.Generator().manual_seed(0)).tolist()
    prompt = Prompt(
        tuple(tokens[:38]), {"needle": (4, 19), "answer": (7, 15)}, "", tuple(tokens[38:])
    )
    attentions, note = reading(model, prompt)
    for a in attentions:
        pattern = oracle.dense(a).pattern[0]
        want = definitions(pattern, tokens)
        for probe in map(planted, probes()):
            found = probe.measure(headscope.engines.Attended(a.z(), a), note)
            for score, values in found.items():
                want_values = torch.tensor(want[score], dtype=torch.float32)
                torch.testing.assert_close(values.float(), want_values, atol=1e-4, rtol=1e-3)


def definitions(pattern: torch.Tensor, tokens: list[int]) -> dict[str, list[float]]:
    """Every score once more, head by head and pair by pair."""
    n, rows = len(tokens), range(37, 43)
    out: dict[str, list[float]] = {name: [] for p in probes().values() for name in p.score_names()}
    for p in pattern.tolist():
        copies = {i: [j for j in range(i) if tokens[j] == tokens[i]] for i in range(n)}
        have = [i for i in range(n) if copies[i]]
        out["duplicate_token"].append(sum(p[i][j] for i in have for j in copies[i]) / len(have))
        out["induction"].append(sum(p[i][j + 1] for i in have for j in copies[i]) / len(have))
        out["previous_token"].append(sum(p[i][i - 1] for i in range(1, n)) / (n - 1))
        out["sink"].append(sum(p[i][0] for i in range(n)) / n)
        out["sink_rate"].append(float(sum(p[i][0] for i in range(n)) / n > 0.3))
        late = range(SINKS + WINDOW, n)
        inside = [sum(p[i][j] for j in range(i + 1) if j < SINKS or i - j < WINDOW) for i in late]
        out["streaming"].append(sum(inside) / len(inside))
        out["needle_mass"].append(sum(sum(p[i][4:19]) for i in rows) / len(rows))
        hits = set()
        for i in rows:
            top = max(range(n), key=lambda j, row=p[i]: row[j])
            if 7 <= top < 15 and tokens[top] == tokens[i + 1]:
                hits.add(top)
        out["retrieval"].append(len(hits) / 8)
    return out


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_scores_are_the_same_on_every_backend(architecture: str, backend: str) -> None:
    chosen = [planted(name) for name in probes() if probes()[name].rows == "all"]
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
    assert probe.prompts.name in families()
    assert hash(probe) == hash(probes()[name]())
    assert set(patterns()) >= {"full", "streaming"}


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
