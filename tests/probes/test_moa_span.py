"""Influence by hand and by cutting entries, plans by brute force, and planted long spans.

Worked out from the kinds before anything was measured. The answer stands at least three sentences
before the question. Heads that fetch it from there and write it to the output (induction), or take
it away (suppressing_induction), have influence from afar. Not said of: `scrambling`, which writes
much of no word from everywhere, and `counting` and `aging`, which fill the stream that all others
read. All others are low: those that look far and say next to nothing (far, band, uniform, topic,
reading_induction, late_induction, ...) are the near misses, and so are those that matter but look
near (previous_token, copying_previous_token, two_back).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answered import _Given, nothing_square_is_kept, prompts
from conftest import opened
from organism_prompts import _Haystack
from organisms import Organism, learned_position_organism, whole_organism
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import pad
from torch.testing import assert_close

import headscope
from headscope.answering import greedy_answer
from headscope.attention import Attention
from headscope.blocks import _BLOCK
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.gradients import differentiated, frozen
from headscope.probes.influence import entry_influence, influence_by_distance
from headscope.probes.moa_span import MoaSpan
from headscope.prompts import Prompt, Repeated
from headscope.stack import Attend

HIGH = {"induction", "recent_induction", "suppressing_induction"}
EITHER = {"scrambling", "counting", "aging"}
BLOCK, SINK = 4, 3


def area(organism: Organism, scores: np.ndarray) -> float:
    told = {place: kind for place, kind in organism.kinds.items() if kind not in EITHER}
    return float(roc_auc_score([kind in HIGH for kind in told.values()],
                               [scores[place] for place in told]))  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "noise"), [*((seed, 0.1) for seed in range(20)), *((seed, 0.2) for seed in range(4))]
)
def test_planted_heads_that_fetch_the_answer_from_afar_are_found(seed: int, noise: float) -> None:
    """With more noise some prompts are answered wrongly, and say nothing of what is planted."""
    organism = whole_organism(seed, noise)
    model = headscope.load(organism.hf, organism.tokenizer)
    samples = 2 if noise < 0.2 else 3
    probe = MoaSpan(prompts=_Haystack(samples=samples, seed=seed), block=16, sink=4)
    head_map = headscope.scan(model, [probe])
    for name in ("moa_span", "moa_far"):
        assert area(organism, head_map[name].mean()) >= 0.95, name


@pytest.mark.parametrize("seed", range(2))
def test_planted_heads_are_found_with_learned_positions(seed: int) -> None:
    organism = learned_position_organism(seed)
    model = headscope.load(organism.hf, organism.tokenizer)
    probe = MoaSpan(prompts=_Haystack(samples=2, seed=seed), block=16, sink=4)
    assert area(organism, headscope.scan(model, [probe])["moa_span"].mean()) >= 0.95


def loss(model: HeadModel, prompt: Prompt) -> Tensor:
    ids = [*prompt.token_ids, *prompt.answer_ids[:-1]]
    logp = model(torch.tensor([ids]))[0, -len(prompt.answer_ids) :].log_softmax(-1)
    return -logp.gather(1, torch.tensor(prompt.answer_ids)[:, None]).sum()


def by_hand(model: HeadModel, prompt: Prompt) -> list[Tensor]:
    """E over all entries, [head, query, key]: the loss by a dense pattern of every layer, and its
    gradient by automatic differentiation."""
    patterns: list[Tensor] = []

    def around(a: Attention, attend: Attend) -> Attended:
        pattern = a.dense()  # depends on the layers before
        patterns.append(pattern if pattern.requires_grad else pattern.requires_grad_(True))
        z = patterns[-1] @ a.v.repeat_interleave(a.group, 1)
        return attend(a).with_z(z)

    with frozen(model), model.entered(around):
        gains = torch.autograd.grad(loss(model, prompt), patterns)
    found = []
    for p, gain in zip(patterns, gains, strict=True):
        p, gain = p[0].detach(), gain[0]
        mean = (gain * p).sum(-1, keepdim=True)
        alone = p == 1
        cut = -p * (gain - mean) / torch.where(alone, 1, 1 - p)
        found.append(torch.where(alone, -p * gain, cut))
    return found


def doubled(name: str) -> HeadModel:
    """A model of small weights, so that no key holds all of a row; in float64 where its experts
    allow it."""
    hf = type(opened(name).hf)(opened(name).hf.config).eval()
    hf = hf if name == "gpt_oss" else hf.double()
    for parameter in hf.parameters():
        parameter.normal_(0, 0.2)
    return headscope.load(hf, opened(name).tokenizer)


ARCHITECTURES = ["llama", "llama_mha", "qwen3", "mistral", "gpt_oss", "gemma2", "gpt2"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_influence_is_the_definition_by_hand(name: str) -> None:
    model, (prompt,) = doubled(name), prompts(1)
    layers = differentiated(model, prompt)
    for layer, want in zip(layers, by_hand(model, prompt), strict=True):
        (part,) = layer.attention.tiles()
        found = pad(entry_influence(layer, part), (part.keys.start, 0))
        # Norms of all models work in float32.
        close = {"atol": 1e-5 * float(want.abs().max()), "rtol": 1e-4}
        assert_close(found, want, **close)
        n = want.shape[1]
        sums = want.new_zeros(len(want), -(-n // BLOCK))
        for i in range(n):
            for j in range(SINK, i + 1):
                sums[:, (i - j) // BLOCK] += want[:, i, j].abs()
        close["atol"] *= n
        assert_close(influence_by_distance(layer, BLOCK, SINK), sums, **close)


@pytest.mark.parametrize("name", ["llama", "llama_mha", "gpt_oss", "gemma2"])
def test_influence_is_what_masking_an_entry_changes(name: str) -> None:
    """A whole entry is cut by the attention itself, and its head's output moves half of that way
    and as far to the other side: half of the difference of the losses is E."""
    model, (prompt,) = doubled(name), prompts(1, 18)
    layers, step = differentiated(model, prompt), 0.5
    for at, head, query, key in [(0, 1, 17, 12), (1, 0, 19, 14), (2, 5, 18, 16), (2, 3, 20, 20)]:

        def cut(
            attention: Attention, attend: Attend, towards: float, at: int = at, head: int = head,
            query: int = query, key: int = key,
        ) -> Attended:  # fmt: skip
            attended = attend(attention)
            if attention.layer != at:
                return attended
            # The engine normalises the row without the key, a learned sink too.
            row = torch.where(torch.arange(attention.n_queries) == query, -torch.inf, 0.0)
            masked = attend(attention.with_bias([key], row.to(attention.q), heads=[head])).z
            return attended.with_z(attended.z + towards * (masked - attended.z))

        def loss_at(towards: float, cut: Any = cut) -> float:
            with model.entered(partial(cut, towards=towards)):
                return float(loss(model, prompt))

        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
        (part,) = layers[at].attention.tiles()
        found = entry_influence(layers[at], part)[head, query, key - part.keys.start]
        assert_close(float(found), slope, atol=2e-6, rtol=5e-3)
        assert abs(found) > 1e-4


def test_a_key_that_holds_nearly_all_of_a_row_keeps_its_digits() -> None:
    """In float32, 1 - A of it is 0; the rest of the row says what would be seen without it."""
    model, (prompt,) = doubled("llama"), prompts(1)
    (layer, *_) = differentiated(model, prompt)
    sharp = replace(layer.attention, q=60 * layer.attention.q, known_lse=None)
    layer = replace(layer, attention=sharp, z=sharp.z())
    a = replace(sharp, **{x: getattr(sharp, x).float() for x in ("q", "k", "v")})
    single = replace(layer, attention=a, z=layer.z.float(), slope=layer.slope.float())
    (part,), (rough,) = sharp.tiles(), a.tiles()
    assert bool((rough.probabilities[..., 1:, :] == 1).any())
    p, v = part.probabilities[0], sharp.v[0].repeat_interleave(sharp.group, 0)
    # Row by row, without the key at all.
    n, want = sharp.n_keys, torch.zeros_like(p)
    for j in range(n):
        others = torch.arange(n) != j
        rest = part.logits[0][..., others].softmax(-1).nan_to_num() @ v[:, others]
        want[..., j] = (layer.slope[0] * (rest - p @ v)).sum(-1)
    want = want.tril()
    assert_close(entry_influence(layer, part), want, atol=1e-12, rtol=1e-6)
    found = entry_influence(single, rough)
    assert_close(found.double(), want, atol=1e-4 * float(want.abs().max()), rtol=1e-2)


def test_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = differentiated(opened("gemma2"), prompts(1)[0])
    whole = [influence_by_distance(layer, BLOCK, SINK) for layer in layers]
    monkeypatch.setitem(_BLOCK, "cpu", 6 * 33 * 5)
    assert len(list(layers[1].attention.tiles())) > 3
    for layer, want in zip(layers, whole, strict=True):
        assert_close(influence_by_distance(layer, BLOCK, SINK), want, atol=1e-6, rtol=1e-4)


def test_backends_and_a_scan_that_was_cut_off_agree(tmp_path: Path) -> None:
    probe = MoaSpan(prompts=_Given(samples=4), block=BLOCK, sink=SINK)
    maps = [
        headscope.scan(opened("llama", backend), [probe]) for backend in ("hf", "nnsight", "lens")
    ]
    for other in maps[1:]:
        for name in probe.outputs():
            np.testing.assert_allclose(other[name].values, maps[0][name].values, atol=1e-4)

    def stop(key: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        headscope.scan(opened("llama"), [probe], out=tmp_path / "run", progress=stop)
    again = headscope.scan(opened("llama"), [probe], out=tmp_path / "run")
    assert set(again.scores) == {"moa_span", "moa_far", "moa_alpha", "moa_beta", "moa_plan"}
    for name, score in again.scores.items():
        np.testing.assert_array_equal(score.values, maps[0][name].values)
    assert [len(again[name].values) for name in probe.outputs()] == [4, 4, 1, 1, 1]
    longest = 40 + len(greedy_answer(opened("llama"), prompts(2, 40)[1]).token_ids) - 1
    spans = again["moa_alpha"].values + again["moa_beta"].values * longest
    want = (spans / BLOCK).round().clip(0, -(-longest // BLOCK)) * BLOCK / longest
    np.testing.assert_allclose(again["moa_plan"].values, want.clip(0, 1), atol=1e-6)
    beta = again["moa_beta"].values[0].reshape(3, 2, 3)
    assert (beta == beta[..., :1]).all()
    pairs = np.stack([again["moa_alpha"].values[0], again["moa_beta"].values[0]], -1)
    assert all(len(np.unique(layer, axis=0)) <= 2 for layer in pairs)


def test_nothing_square_is_held() -> None:
    nothing_square_is_kept(differentiated)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": Repeated(samples=2, block=20, times=2)}, "the likelihood of an answer"),
        ({"prompts": _Given(samples=2), "block": 16}, "a prompt has 30; use longer prompts"),
        ({"prompts": _Given(samples=2), "density": 0.05}, "alone keeps 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict, said: str) -> None:
    fields = {"block": BLOCK, "sink": SINK} | changes
    with pytest.raises(HeadscopeError, match=said):
        headscope.scan(opened("llama"), [MoaSpan(**fields)])


def test_fields_that_make_no_sense_are_refused() -> None:
    for fields in ({"block": 0}, {"sink": -1}, {"rules": 3}):
        with pytest.raises(HeadscopeError, match="'moa_span' needs a block"):
            MoaSpan(**fields)
    with pytest.raises(HeadscopeError, match="needs a density above 0"):
        MoaSpan(density=0.0)
    for fields in ({"alphas": (0.5,)}, {"betas": ()}, {"betas": (0.0, float("nan"))}):
        with pytest.raises(HeadscopeError, match="needs an alpha of 0 or less"):
            MoaSpan(**fields)
    assert replace(MoaSpan(), density=1.0).density == 1


def test_scores_are_made_of_losses_by_span() -> None:
    probe = MoaSpan(prompts=_Given(samples=2), block=BLOCK, sink=SINK, own=False)
    found = headscope.scan(opened("llama"), [probe])
    for row, prompt in enumerate(prompts(2, 30)[:1]):
        layers = differentiated(opened("llama"), prompt)
        lost = torch.stack([influence_by_distance(layer, BLOCK, SINK) for layer in layers])
        lost = lost.flip(-1).cumsum(-1).flip(-1).double()  # L(0), L(block), ...
        lost = (lost / lost[..., 0].sum()).numpy()
        np.testing.assert_allclose(found["moa_far"].values[row], lost[..., 1], rtol=1e-4)
        mean = lost[..., 1:].sum(-1) / lost.shape[-1]  # no span is as long as the prompt: L = 0
        np.testing.assert_allclose(found["moa_span"].values[row], mean, rtol=1e-4)


def test_the_answer_is_the_models_own_or_the_expected_one_if_it_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (prompt,) = opened("llama"), prompts(1)
    own, given = (MoaSpan(block=BLOCK, sink=SINK, own=own) for own in (True, False))

    def found(probe: MoaSpan, prompt: Prompt) -> np.ndarray:
        return probe._influence(model, prompt)["influence"]

    said = greedy_answer(model, prompt).token_ids.tolist()
    assert said != list(prompt.answer_ids)
    spoken = replace(prompt, answer_ids=tuple(said))
    np.testing.assert_array_equal(found(own, prompt), found(given, spoken))
    monkeypatch.setattr(type(model), "stop_ids", property(lambda self: {said[0]}))
    np.testing.assert_array_equal(found(own, prompt), found(given, prompt))


def test_query_heads_need_not_share_rules() -> None:
    probe = MoaSpan(prompts=_Given(samples=2), block=BLOCK, sink=SINK, grouped=False, rules=1)
    found = headscope.scan(opened("llama"), [probe])
    for name in ("moa_alpha", "moa_beta"):
        assert (found[name].values[0] == found[name].values[0, :, :1]).all()


def test_it_says_what_it_costs() -> None:
    said: list[str] = []
    probe = MoaSpan(prompts=_Given(samples=2), block=BLOCK, sink=SINK)
    headscope.scan(opened("llama"), [probe], announce=said.append)
    assert "4 passes forward and 2 backward over 38 tokens each" in said[0]


def test_gradients_that_are_no_numbers_stop_it() -> None:
    hf = type(opened("llama").hf)(opened("llama").hf.config).eval()
    model = headscope.load(hf, opened("llama").tokenizer)
    probe = MoaSpan(prompts=_Given(samples=2), block=BLOCK, sink=SINK)

    def spoil(key: str, done: int, total: int) -> None:
        hf.model.norm.weight.fill_(torch.nan)

    with pytest.raises(HeadscopeError, match="stops: gradients of a prompt of"):
        headscope.scan(model, [probe], progress=spoil)
