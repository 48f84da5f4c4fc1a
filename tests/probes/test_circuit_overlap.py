"""Heads of two tasks: planted ones found, effects by hand, overlap held against chance."""

import dataclasses
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import organisms
import pytest
import torch
from conftest import opened
from made_pairs import _Random
from organism_kinds import Roster
from sklearn.metrics import roc_auc_score
from tiny import tiny_model
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import headscope
from headscope.circuits import overlap, overlap_of
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, Item
from headscope.evals.questions import Questions
from headscope.patch_runs import pairs_of
from headscope.patching import patch_heads
from headscope.probes.circuit_overlap import CircuitOverlap
from headscope.prompts import Prompt, Repeated

NAMES = CircuitOverlap.outputs()


@dataclass(frozen=True)
class _Toy(Eval):
    """x y among other words and x at the end, or what makes that so in the clean prompt alone."""

    metric = "choice"
    source = licence = "none"
    samples: int = 6

    def drawn(self, index: int, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], int, int]:
        start, *words = tokenizer.bos_token_id, *self.rng(index).sample(range(165, 400), 8)
        return [start, *words[:6]], words[6], words[7]

    def pair(self, clean: list[int], corrupt: list[int], right: int, wrong: int) -> Item:
        first, other = (
            Prompt(tuple(ids), answer_ids=(answer,), facts={"length": 0})
            for ids, answer in ((clean, right), (corrupt, wrong))
        )
        return Item(first, wrong=((wrong,),), corrupt=other)


class _Keys(_Toy):
    """x y, z w ... x: in the corrupt prompt x and z are in each other's place, and w is right."""

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        words, x, z = self.drawn(index, tokenizer)
        start, y, w, *rest = words
        right, wrong = [start, x, y, z, w], [start, z, y, x, w]
        return self.pair([*right, *rest, x], [*wrong, *rest, x], y, w)


class _Before(_Toy):
    """x r among other words, then r x at the end, answered by r; another r in the corrupt prompt.

    Induction heads copy what came after x, heads that copy the previous token what came before.
    """

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        (start, x, *rest), right, wrong = self.drawn(index, tokenizer)
        clean, corrupt = ([start, *rest[:2], x, r, *rest[2:], r, x] for r in (right, wrong))
        return self.pair(clean, corrupt, right, wrong)


@dataclass(frozen=True)
class _Toys(Questions):
    """The two tasks."""

    tasks: tuple[str, ...] = ("keys", "before")
    samples: int = 12

    def evals(self) -> list[Eval]:
        return [kind(self.samples // 2, self.seed, split=self.split) for kind in (_Keys, _Before)]


# Declared before anything was measured. Both tasks need induction; where keys change, the head that
# makes them matters too, and where the word before is the answer, those that copy it.
SHARED, FIRST, SECOND = {"induction"}, {"previous_token"}, {"copying_previous_token"}
ROSTER = Roster(
    ("previous_token", "two_back"),
    (
        *("induction", "induction"),
        *("late_induction", "reading_induction", "weak_induction", "suppressing_induction"),
    ),
    (
        *2 * ("copying_previous_token", "duplicate_token"),
        *("idle_previous_token", "sink", "window", "current_token", "uniform", "scrambling"),
    ),
)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(20))
def test_planted_heads_of_both_tasks_rank_first(seed: int, noise: float) -> None:
    made = organisms._llama(seed, noise, (2, 10, 5), ROSTER)
    model = headscope.load(made.hf, made.tokenizer)
    head_map = headscope.scan(model, [CircuitOverlap(prompts=_Toys(seed=seed))])
    for name, kinds in {
        "circuit_overlap": SHARED,
        "circuit_a": SHARED | FIRST,
        "circuit_b": SHARED | SECOND,
    }.items():
        truth = [made.kinds[head] in kinds for head in head_map.heads()]
        assert roc_auc_score(truth, head_map[name].mean().ravel()) >= 0.95, name


def test_the_circuits_of_an_organism_share_their_induction_heads() -> None:
    made = organisms._llama(1, 0.1, (2, 10, 5), ROSTER)
    model = headscope.load(made.hf, made.tokenizer)
    probe = CircuitOverlap(prompts=_Toys(samples=24), direction="noising")
    found = overlap_of(headscope.scan(model, [probe]), top=4)
    assert {made.kinds[head] for head in found.shared} >= SHARED
    assert found.jaccard() == len(found.shared) / len({*found.a.found, *found.b.found})
    assert (found.a.task, found.b.task, found.direction) == ("keys", "before", "noising")
    sure = overlap_of(headscope.scan(model, [probe]))
    assert {head for head, kind in made.kinds.items() if kind in SHARED} <= set(sure.shared)


@dataclass(frozen=True)
class _Randoms(Questions):
    """Two tasks of random tokens that a random model happens to tell apart."""

    tasks: tuple[str, ...] = ("first", "second")
    samples: int = 12

    def evals(self) -> list[Eval]:
        half = self.samples // 2
        first = _Random(half, self.seed, split=self.split, changed=6)
        return [first, _Random(half, self.seed + 100, split=self.split, changed=9, answer=2)]


@cache
def measured(backend: str = "hf") -> headscope.HeadMap:
    probe = CircuitOverlap(prompts=told_apart(opened("llama")))
    return headscope.scan(opened("llama", backend), [probe])


def told_apart(model: headscope.HeadModel) -> _Randoms:
    for seed in range(40):
        family = _Randoms(seed=seed)
        gaps = [
            np.mean([np.subtract(*pair.gap(model)) for pair in pairs_of(model, task)])
            for task in family.evals()
        ]
        if min(gaps) > 0.5:
            return family
    raise AssertionError


def margin_by_hand(hf: Any, item: Item, ids: tuple[int, ...], kept: Any = None) -> float:
    """In whole passes of the model itself; `kept` is (layer, head, what o_proj was given)."""
    d = hf.config.hidden_size // hf.config.num_attention_heads

    def said(answer: tuple[int, ...]) -> Tensor:
        hooks = []
        if kept is not None:
            layer, head, stored = kept

            other = stored(answer)[layer]

            def swap(module: Any, args: Any) -> Any:
                new = args[0].clone()
                new[..., d * head : d * (head + 1)] = other[..., d * head : d * (head + 1)]
                return (new,)

            hooks = [hf.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(swap)]
        logits = hf(torch.tensor([[*ids, *answer[:-1]]])).logits[0, len(ids) - 1 :]
        for hook in hooks:
            hook.remove()
        return logits.log_softmax(-1)[range(len(answer)), list(answer)].sum()

    right = torch.stack([said(a) for a in (item.prompt.answer_ids, *item.right)])
    wrong = torch.stack([said(a) for a in item.wrong])
    return float(right.logsumexp(0) - wrong.logsumexp(0))


def given_to_o_proj(hf: Any, ids: tuple[int, ...]) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [
        block.self_attn.o_proj.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        for block in hf.model.layers
    ]
    hf(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("name", "direction"), [("llama", "denoising"), ("llama_mha", "noising")])
def test_effects_are_those_of_whole_passes_patched_by_hand(name: str, direction: Any) -> None:
    model, hf = opened(name), tiny_model(name).double()
    family = told_apart(model)
    head_map = headscope.scan(model, [CircuitOverlap(prompts=family, direction=direction)])
    heads = [(0, 1), (1, 4), (2, 3)]
    effects: dict[str, np.ndarray] = {}
    for side, task in zip("ab", family.evals(), strict=True):
        gaps, changes = [], []
        for item in task.items(model.tokenizer):
            assert item.corrupt is not None
            clean, corrupt = item.prompt.token_ids, item.corrupt.token_ids
            base, other = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
            gaps.append(margin_by_hand(hf, item, clean) - margin_by_hand(hf, item, corrupt))
            plain = margin_by_hand(hf, item, base)
            changes.append(
                [
                    margin_by_hand(
                        hf, item, base,
                        (*head, lambda a, o=other: given_to_o_proj(hf, (*o, *a[:-1]))),
                    )
                    - plain
                    for head in heads
                ]
            )  # fmt: skip
        rows, columns = zip(*heads, strict=True)
        nats = head_map[f"circuit_{side}_change"].values[:, rows, columns]
        np.testing.assert_allclose(nats, changes, atol=2e-3)
        sign = 1 if direction == "denoising" else -1
        effects[side] = sign * np.mean(changes, axis=0) / np.mean(gaps)
        found = head_map[f"circuit_{side}"].mean()[rows, columns]
        np.testing.assert_allclose(found, effects[side], atol=2e-3)
    both = np.minimum(effects["a"], effects["b"])
    np.testing.assert_allclose(head_map["circuit_overlap"].mean()[rows, columns], both, atol=2e-3)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_the_same_on_every_backend(backend: str) -> None:
    maps = [measured("hf"), measured(backend)]
    for name in NAMES:
        np.testing.assert_allclose(maps[0][name].values, maps[1][name].values, atol=1e-3)
        np.testing.assert_allclose(maps[0][name].mean(), maps[1][name].mean(), atol=1e-4)


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    from headscope import patching

    model = opened("llama")
    probe = CircuitOverlap(prompts=told_apart(model))
    whole = measured()
    done, one_pair = [], patching.one_pair

    def cut(*args: Any) -> Any:
        done.append(args)
        if len(done) == 5:
            raise KeyboardInterrupt
        return one_pair(*args)

    monkeypatch.setattr(patching, "one_pair", cut)
    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, [probe], out=tmp_path / "run")
    said: list[str] = []
    again = headscope.scan(model, [probe], out=tmp_path / "run", announce=said.append)
    assert len(done) == 5 + 12 - 4
    # 18 heads and the run itself, in one pass where answers are a token long, else in one for each.
    assert f"{6 * 19 + 6 * 19 * 3} passes forward and 0 backward over" in said[0]
    for name in NAMES:
        np.testing.assert_array_equal(again[name].values, whole[name].values)


def test_scores_are_those_of_two_patching_maps() -> None:
    model = opened("llama")
    family = told_apart(model)
    head_map = measured()
    maps = [patch_heads(model, task) for task in family.evals()]
    for side, found in zip("ab", maps, strict=True):
        flat = head_map[f"circuit_{side}"].values.reshape(6, -1)
        np.testing.assert_allclose(flat, found.effects(), atol=1e-5)
    ours, theirs = overlap_of(head_map, top=5), overlap(*maps, top=5)
    assert (ours.a.found, ours.b.found) == (theirs.a.found, theirs.b.found)
    assert theirs.a.found == tuple(sorted(maps[0].leading(5)))
    np.testing.assert_allclose(ours.a.q, maps[0].table()["q"], atol=1e-6)
    assert ours.p() == theirs.p()
    assert theirs.direction == "denoising"


@dataclass(frozen=True)
class _Wanting(_Randoms):
    """Of its two tasks one makes no pairs."""

    def evals(self) -> list[Eval]:
        first, second = super().evals()
        return [
            first,
            _Lonely(**{f.name: getattr(second, f.name) for f in dataclasses.fields(second)}),
        ]


class _Lonely(_Random):
    def item(self, index: int, tokenizer: Any) -> Item:
        return dataclasses.replace(super().item(index, tokenizer), corrupt=None)


@dataclass(frozen=True)
class _Chance(_Randoms):
    """Clean and corrupt are the other way round in the second task."""

    def evals(self) -> list[Eval]:
        first, _ = super().evals()
        return [first, _Swapped(first.samples, self.seed, split=self.split, changed=6)]


class _Swapped(_Random):
    def rng(self, *parts: Any) -> random.Random:
        return _Random(self.samples, self.seed, split=self.split).rng(*parts)

    def item(self, index: int, tokenizer: Any) -> Item:
        item = super().item(index, tokenizer)
        assert item.corrupt is not None
        ids, other = item.prompt.token_ids, item.corrupt.token_ids
        return dataclasses.replace(
            item,
            prompt=dataclasses.replace(item.prompt, token_ids=other),
            corrupt=dataclasses.replace(item.corrupt, token_ids=ids),
        )


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Repeated(block=10, times=2), "'circuit_overlap' compares two tasks"),
        (_Randoms(tasks=("first",)), "'circuit_overlap' compares two tasks"),
        (_Randoms(samples=13), "'circuit_overlap' needs as many pairs of both.*even number"),
        (_Randoms(samples=10), "'circuit_overlap' takes pairs: .*at least 6 prompts"),
        (_Wanting(), "'circuit_overlap' takes pairs: The eval '_lonely' has no corrupt prompts"),
    ],
)
def test_prompts_that_make_no_pairs_of_two_tasks_are_refused(prompts: Any, message: str) -> None:
    with pytest.raises(HeadscopeError, match=message):
        headscope.scan(opened("llama"), [CircuitOverlap(prompts=prompts)])


def test_a_model_at_chance_is_told_before_heads_are_patched(monkeypatch: Any) -> None:
    model = opened("llama")
    family = _Chance(seed=told_apart(model).seed)
    monkeypatch.setattr("headscope.patching.one_pair", None)
    with pytest.raises(HeadscopeError, match=r"'circuit_overlap' stops: .*prompts of _swapped"):
        headscope.scan(model, [CircuitOverlap(prompts=family)])
    probe = CircuitOverlap()
    object.__setattr__(probe, "direction", "up")  # types are checked in tests alone
    with pytest.raises(HeadscopeError, match="needs the direction 'denoising' or 'noising'"):
        probe.__post_init__()
