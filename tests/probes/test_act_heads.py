"""Heads that calibrating helps: planted ones found, each head by hand, tested and selected."""

from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import organisms
import pytest
import torch
from altered import act as by_hand
from conftest import opened
from made_pairs import _Random, margin
from organism_kinds import _REST, KINDS, STOP, STOP_CODE, Kind, Roster
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedTokenizerBase

import headscope
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.evals.act_heads import act_table, select_act_heads, selected
from headscope.evals.base import Eval, Item
from headscope.evals.measured import Measured
from headscope.evals.multiplicity import benjamini_hochberg
from headscope.evals.questions import Questions
from headscope.evals.statistics import sign_flip_p
from headscope.heads import label
from headscope.interventions.act import ACT
from headscope.probes.act_heads import ActHeads
from headscope.prompts import Prompt, Repeated
from headscope.stack import Attend

NAMES = ActHeads.outputs()


@dataclass(frozen=True)
class _Stopped(Eval):
    """x y among other words behind a full stop, then x: y or the word of another place?"""

    metric = "choice"
    source = licence = "none"
    samples: int = 6

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        x, y, z, w, *rest = self.rng(index).sample(range(165, 400), 15)
        early = (tokenizer.bos_token_id, rest[0], STOP, rest[1], x, y)
        ids = (*early, *rest[2:8], z, w, *rest[8:], x)
        return Item(Prompt(ids, answer_ids=(y,), facts={"length": 0}), wrong=((w,), (z,)))


@dataclass(frozen=True)
class _Toys(Questions):
    tasks: tuple[str, ...] = ("stopped",)
    samples: int = 6

    def evals(self) -> list[Eval]:
        return [_Stopped(self.samples, self.seed, split=self.split)]


# Declared before anything was measured: heads that would copy the answer, and give most of their
# attention to the full stop instead. Beside them are heads that rest on full stops and write
# nothing, and heads that copy the answer and have no such sink.
# Revised, for the prompts had other truths in them: a key that fewer than 10 rows see is a sink of
# any head that reads it once, the answer's too, so that 14 rows see it now; and heads that copy the
# previous token gain where that is a wrong answer, so that none stands before the end now.
STARVED = Kind(match={"previous": 40.0}, seeks={("token", STOP_CODE): 46.0, **_REST}, copies=0.7)
ROSTER = Roster(
    ("previous_token",),
    ("starved", "starved", "induction"),
    (
        *2 * ("hidden_sink",),
        *("duplicate_token", "copying_previous_token", "sink", "window", "uniform"),
    ),
)


def organism(seed: int, noise: float, monkeypatch: Any) -> tuple[headscope.HeadModel, list[bool]]:
    """Two layers of six heads, and which of these are starved."""
    monkeypatch.setitem(KINDS, "starved", STARVED)
    made = organisms._llama(seed, noise, (2, 6, 3), ROSTER)
    model = headscope.load(made.hf, made.tokenizer)
    return model, [made.kinds[head] == "starved" for head in model.heads]


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(20))
def test_planted_heads_that_sinks_starve_gain_most(
    seed: int, noise: float, monkeypatch: Any
) -> None:
    model, starved = organism(seed, noise, monkeypatch)
    probe = ActHeads(prompts=_Toys(seed=seed), skip=0, most=None)
    scores = headscope.scan(model, [probe])["act_heads"].mean()
    assert roc_auc_score(starved, scores.ravel()) >= 0.95


def test_planted_heads_are_selected(monkeypatch: Any) -> None:
    """Of 10 questions p may be 2 · (1/2)^10: enough for two heads among twelve."""
    model, starved = organism(3, 0.1, monkeypatch)
    found = headscope.scan(model, [ActHeads(prompts=_Toys(samples=10), skip=0, most=None)])
    wanted = {head for head, is_one in zip(model.heads, starved, strict=True) if is_one}
    assert wanted <= set(selected(found))


@dataclass(frozen=True)
class _Randoms(Questions):
    """Random tokens: choices of one token and of two."""

    tasks: tuple[str, ...] = ("first", "second")
    samples: int = 6
    chosen: tuple[int, ...] = (1, 2)

    def evals(self) -> list[Eval]:
        half = self.samples // 2
        return [_Random(half, self.seed, split=self.split, answer=n) for n in self.chosen]


PROBE = ActHeads(prompts=_Randoms(), beta=0.2, threshold=0.12, skip=1, most=None)


@cache
def measured(backend: str = "hf") -> headscope.HeadMap:
    return headscope.scan(opened("llama", backend), [PROBE])


@pytest.mark.parametrize(("name", "first"), [("llama", True), ("llama_mha", False)])
def test_each_head_alone_is_what_dense_patterns_give(name: str, first: bool) -> None:
    """Every pass a whole one; the pattern is edited by hand in float64."""
    model = opened(name)
    probe = replace(PROBE, first_receives=first)
    head_map = headscope.scan(model, [probe])
    items = probe.prompts.items(model.tokenizer)
    for index in (0, 3):
        item = items[index]
        plain = margin(model, item, item.prompt)
        for layer, head in [(1, 0), (1, 4), (2, 3), (2, 5)]:
            method = ACT(
                heads=((layer, head),), beta=0.2, threshold=0.12, first_receives=first, skip=1
            )
            sinks = prompt_sinks(model, item.prompt, method, layer, head)

            def edited(
                attention: Attention, attend: Attend, m: Any = method, s: Any = sinks
            ) -> Attended:
                if attention.layer != m.heads[0][0]:
                    return attend(attention)
                # Of the prompt alone, whatever of the answer is read with it.
                every = {(0, h): s for h in range(attention.n_heads)}
                attention.run.state["by hand", m] = {attention.layer: every}
                pattern = by_hand.edit(m, attention, oracle.dense(attention).pattern)
                v = attention.v.double().repeat_interleave(attention.group, 1)
                return Attended((pattern @ v).to(attention.v.dtype), attention)

            with model.entered(edited):
                change = margin(model, item, item.prompt) - plain
            values = {each: head_map[each].values[index, layer, head] for each in NAMES}
            assert values["act_heads"] == pytest.approx(change, abs=1e-3)
            assert values["act_tried"] == float(len(sinks) > 1)
    assert (head_map["act_heads"].values[:, 0] == 0).all()
    assert (head_map["act_tried"].values[:, 0] == 0).all()
    assert (head_map["act_sinks"].values[:, 0] > 0).any()


def prompt_sinks(model: Any, prompt: Prompt, method: ACT, layer: int, head: int) -> list[int]:
    kept: list[Any] = []
    with model.observed(lambda attended: kept.append(attended.attention)):
        model(torch.tensor([prompt.token_ids]))
    attention = kept[model.layers.index(layer)]
    pattern = oracle.dense(attention).pattern
    return by_hand.sinks(attention, pattern, method.threshold)[0, head]


def test_scores_are_those_of_the_selection_on_the_same_questions() -> None:
    """`select_act_heads` passes through every head, and reads the base in another way."""
    model = opened("llama")
    family = _Randoms(split="tune", samples=12, chosen=(2,), tasks=("first",))
    head_map = headscope.scan(model, [replace(PROBE, prompts=family)])
    method = ACT(beta=0.2, threshold=0.12, skip=1)
    heads = ["L1H0", "L1H4", "L2H3"]
    found = select_act_heads(model, [_Random(6, answer=2)], method=method, heads=heads)
    for i, (layer, head) in enumerate(found.heads, 1):
        task = found.evaluation.tasks[0]
        want = task.values(i) - task.values(0)
        np.testing.assert_allclose(head_map["act_heads"].values[:6, layer, head], want, atol=1e-4)
        exact = task.exact(i).astype(float) - task.exact(0)
        np.testing.assert_array_equal(head_map["act_exact"].values[:6, layer, head], exact)


def test_sinks_are_those_of_dense_patterns() -> None:
    model, head_map = opened("llama"), measured()
    for index, item in enumerate(PROBE.prompts.items(model.tokenizer)[:2]):
        kept: list[Attention] = []
        with model.observed(lambda attended, kept=kept: kept.append(attended.attention)):
            model(torch.tensor([item.prompt.token_ids]))
        for layer, attention in enumerate(kept):
            pattern = oracle.dense(attention).pattern
            found = by_hand.sinks(attention, pattern, PROBE.threshold)
            for head in range(model.n_heads):
                later = found[0, head][1:]
                mass = float(pattern[0, head][:, later].sum(-1).mean()) if later else 0
                value = head_map["act_sinks"].values[index, layer, head]
                assert value == pytest.approx(mass, abs=1e-5)
                assert (value > 0) == bool(later)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_the_same_on_every_backend(backend: str) -> None:
    for name in NAMES:
        np.testing.assert_allclose(
            measured()[name].values, measured(backend)[name].values, atol=1e-4
        )


def test_only_heads_with_most_on_hidden_sinks_are_tried() -> None:
    every = measured()
    some = headscope.scan(opened("llama"), [replace(PROBE, most=4)])
    mass = np.where(np.arange(3)[:, None] >= 1, every["act_sinks"].mean(), 0)
    best = {divmod(int(i), 6) for i in np.argsort(-mass.ravel())[:4]}
    tried = {(int(a), int(b)) for a, b in np.argwhere(some["act_tried"].mean() > 0)}
    assert tried == best
    for layer, head in some.heads():
        want = every["act_heads"].values[:, layer, head] * ((layer, head) in best)
        np.testing.assert_array_equal(some["act_heads"].values[:, layer, head], want)
    assert len(act_table(some)) == 4
    np.testing.assert_array_equal(some["act_sinks"].values, every["act_sinks"].values)


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    from headscope.evals import calibrating

    answered, calls = calibrating.answered, []

    def cut(*args: Any) -> Any:
        calls.append(args)
        if len(calls) in (4, 30):
            raise KeyboardInterrupt
        return answered(*args)

    monkeypatch.setattr(calibrating, "answered", cut)
    said: list[str] = []
    scan = partial(headscope.scan, opened("llama"), [PROBE], out=tmp_path / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            scan(announce=said.append)
    again = scan()
    tried = int((again["act_heads"].values != 0).sum())
    assert len(calls) == 6 + int(again["act_tried"].values.sum()) + 2
    assert tried > 20
    assert f"{6 * (2 + 12)} passes forward and 0 backward" in said[0]
    assert "fewer where a head has no hidden sink" in said[0]
    for name in NAMES:
        np.testing.assert_array_equal(again[name].values, measured()[name].values)


def test_heads_that_help_are_selected_at_a_rate_of_false_discoveries() -> None:
    head_map = measured()
    table = act_table(head_map).set_index("name")
    tried = np.argwhere(head_map["act_tried"].mean() > 0)
    assert set(table.index) == {label((int(layer), int(head))) for layer, head in tried}
    p = []
    for layer, head in tried:
        change = head_map["act_heads"].values[:, layer, head].astype(np.float64)
        p.append(sign_flip_p(change))
        row = table.loc[label((int(layer), int(head)))]
        assert row["change"] == pytest.approx(change.mean())
        assert row["p"] == pytest.approx(p[-1])
        exact = head_map["act_exact"].values[:, layer, head].mean()
        assert row["exact"] == pytest.approx(exact)
    q = dict(zip(map(tuple, tried.tolist()), benjamini_hochberg(np.array(p)), strict=True))
    for level in (0.05, 0.5, 1.0):
        want = {head for head, value in q.items() if value <= level}
        want = {head for head in want if head_map["act_heads"].mean()[head] > 0}
        assert set(selected(head_map, level)) == want


def test_where_no_head_has_a_hidden_sink_nothing_is_tried() -> None:
    head_map = headscope.scan(opened("llama"), [replace(PROBE, threshold=1.0)])
    for name in NAMES:
        assert (head_map[name].values == 0).all()
    with pytest.raises(HeadscopeError, match="No head was calibrated"):
        selected(head_map)


class _Running(_Random):
    metric = "tokens"


@dataclass(frozen=True)
class _Texts(_Randoms):
    def evals(self) -> list[Eval]:
        return [super().evals()[0], _Running(4)]


@dataclass(frozen=True)
class _Said(_Randoms):
    """An answer that nothing competes with."""

    def evals(self) -> list[Eval]:
        return [super().evals()[0], _Alone(4, answer=2, split=self.split)]


class _Alone(_Random):
    metric = "answer"

    def item(self, index: int, tokenizer: Any) -> Item:
        return Item(super().item(index, tokenizer).prompt)


def test_an_answer_without_a_choice_counts_by_its_own_probability() -> None:
    model = opened("llama")
    head_map = headscope.scan(model, [replace(PROBE, prompts=_Said(), most=3)])
    task = _Alone(6, answer=2, split="detect")
    (layer, head), *_ = np.argwhere(head_map["act_tried"].values[1] > 0).tolist()
    method = ACT(heads=((layer, head),), beta=0.2, threshold=0.12, skip=1)
    found = headscope.evaluate(model, [task], changes={"act": method}).tasks[0]
    assert isinstance(found, Measured)
    want = found.values(1)[0] - found.values(0)[0]
    assert head_map["act_heads"].values[1, layer, head] == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Repeated(block=10, times=2), "'act_heads' needs questions with answers"),
        (_Texts(), "'act_heads' needs answers that can be right, and '_running' is"),
        (_Randoms(samples=4), "'act_heads' asks questions: .*at least 6 prompts"),
    ],
)
def test_prompts_without_answers_are_refused(prompts: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        headscope.scan(opened("llama"), [replace(PROBE, prompts=prompts)])


def test_parameters_that_fit_nothing_are_refused() -> None:
    for wrong in ({"beta": 1.5}, {"threshold": -0.1}, {"skip": -1}, {"most": 0}):
        with pytest.raises(HeadscopeError, match="'act_heads' needs beta and threshold from 0"):
            ActHeads(**wrong)
    with pytest.raises(HeadscopeError, match="'act_heads' would skip all 3 layers"):
        headscope.scan(opened("llama"), [replace(PROBE, skip=3)])
