"""The discrete autoencoder: planted heads, its definition by hand, and what it refuses."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from organism_prompts import HAYSTACK
from organisms import Organism, rope_organism, whole_organism
from torch import Generator, Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import headscope
from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.questions import Questions
from headscope.model import HeadModel
from headscope.probes.discrete_sae import DiscreteSae, edges, scaled
from headscope.probes.negatives import asked, emptied
from headscope.probes.sparse_autoencoder import SILENT, SparseAutoencoder, Training
from headscope.probes.study import Work
from headscope.prompts import Prompt, Repeated
from headscope.prompts.base import PromptFamily
from headscope.smollm2 import smollm2_folder

REPEATED = Repeated(samples=6, block=10, times=2)
# With the needle they say what follows the question's last word, or what follows that; without
# it they rest on the start. That topic, duplicate_token and echo say the same without it was seen
# in measurements on seeds 0 to 2 of the large organism, where they were high at first.
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
SMALL = {"features": 60, "steps": 50, "batch": 256, "lr": 0.01, "repeats": 1}


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


@pytest.mark.parametrize("seed", [33, 39])
def test_planted_heads_are_found_among_all_kinds_and_noise(seed: int) -> None:
    """Twice the noise, and as many prompts as by default.

    Of seeds 20 to 39, measured once, 33 is the hardest (0.956); with 12 prompts, of which noise
    leaves 5 to 12, five of eighteen came below 0.95 and two were refused.
    """
    assert area(whole_organism(seed, noise=0.2), seed, 32) >= 0.95


# ---- the definition once more --------------------------------------------------------------


@dataclass(frozen=True)
class _Given(PromptFamily):
    """Tokens, and one token that is to follow each."""

    ids: tuple[tuple[int, ...], ...] = ()
    answers: tuple[int, ...] = ()

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        answer = self.answers[index : index + 1]
        return Prompt(self.ids[index], {}, f"w{answer[0]}" if answer else "", answer)


PROMPTS = 8


def pairs(model: HeadModel, **fields: Any) -> DiscreteSae:
    """Prompts that go on as the model says, held against others."""
    drawn = torch.randint(3, 90, (2, PROMPTS, 12), generator=Generator().manual_seed(3))
    said = [int(model.forward(ids.tolist(), last=1)[0, -1].argmax()) for ids in drawn[0]]
    ids, others = (tuple(tuple(row) for row in half.tolist()) for half in drawn)
    family = _Given(samples=PROMPTS, ids=ids, answers=tuple(said))
    chosen = {"features": 30, "steps": 30, "batch": 64, "lr": 0.01, "repeats": 2, **fields}
    return DiscreteSae(prompts=family, negatives=_Given(ids=others), **chosen)


def studied(probe: DiscreteSae, model: HeadModel, work: Work | None = None) -> dict[str, Tensor]:
    prompts = probe.prompts.prompts(model.tokenizer)
    return dict(probe.study(model, prompts, work or Work()))


def dense_outputs(model: HeadModel, ids: Sequence[int]) -> np.ndarray:
    """[head, d] of the last row, from whole patterns in float64."""
    seen: list[Attention] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model.forward(ids)
    rows = []
    for a in seen:
        q = a.q[0, :, -1].double().numpy()
        k, v = (x[0].double().numpy().repeat(a.group, axis=0) for x in (a.k, a.v))
        weights = np.exp(a.scale * np.einsum("hd,hjd->hj", q, k))
        weights /= weights.sum(1, keepdims=True)
        rows.append(np.einsum("hj,hjd->hd", weights, v))
    return np.concatenate(rows)


def unique(positive: Sequence[Any], negative: Sequence[Any]) -> float:
    return sum(code not in negative for code in positive) / len(positive)


def excess(positive: Sequence[Any], negative: Sequence[Any]) -> float:
    """Share of unique codes less what it is over all swaps within pairs."""
    both = list(zip(positive, negative, strict=True))
    chance = []
    for swaps in itertools.product((0, 1), repeat=len(both)):
        ours = [pair[s] for pair, s in zip(both, swaps, strict=True)]
        theirs = [pair[1 - s] for pair, s in zip(both, swaps, strict=True)]
        chance.append(unique(ours, theirs))
    return unique(positive, negative) - sum(chance) / len(chance)


@pytest.mark.parametrize("name", ["llama", "llama_mha"])
def test_scores_equal_their_definition(name: str) -> None:
    model = opened(name)
    probe = pairs(model, repeats=1, least=3)
    assert isinstance(probe.negatives, _Given)
    assert isinstance(probe.prompts, _Given)
    z = []
    for ours, theirs, answer in zip(
        probe.prompts.ids, probe.negatives.ids, probe.prompts.answers, strict=True
    ):
        surer = [float(model.forward(i, last=1)[0, -1].log_softmax(-1)[answer])
                 for i in (ours, theirs)]  # fmt: skip
        if surer[0] > surer[1]:
            z.append([dense_outputs(model, ours), dense_outputs(model, theirs)])
    x = np.stack(z, 1)
    centred = x - x.mean((0, 1))
    x = centred / np.sqrt((x**2).sum(-1).mean((0, 1)))[:, None]
    training = Training(probe.features, probe.sparsity, probe.steps, probe.batch, probe.lr)
    flat = torch.from_numpy(x.reshape(-1, x.shape[-1]))
    coder = training.run(flat, probe.seed, lambda losses: None)
    encoder, bias, _, center = (
        part.numpy() for part in (coder.encoder, coder.bias, coder.decoder, coder.center)
    )
    active = np.maximum((x - center) @ encoder + bias, 0)
    codes = np.where(active.max(-1) > 0, active.argmax(-1), SILENT)
    found = {name: rows.flatten().numpy() for name, rows in studied(probe, model).items()}
    heads = codes.shape[-1]
    ours, theirs = ([tuple(codes[i, :, h].tolist()) for h in range(heads)] for i in (0, 1))
    both = np.array(
        [[excess([*zip(ours[a], ours[b], strict=True)], [*zip(theirs[a], theirs[b], strict=True)])
          for a in range(heads)] for b in range(4)]
    )  # fmt: skip
    for h in range(heads):
        assert found["discrete_sae"][h] == pytest.approx(excess(ours[h], theirs[h]), abs=1e-6)
        assert found["discrete_sae_unique"][h] == pytest.approx(unique(ours[h], theirs[h]))
        only = len({*ours[h]} - {*theirs[h]})
        assert found["discrete_sae_codes"][h] == pytest.approx(only / codes.shape[1])
    matrix = edges(torch.from_numpy(codes))
    np.testing.assert_allclose(matrix[:4], both, atol=1e-6)
    mean = (both.sum(1) - both.diagonal()) / (heads - 1)
    np.testing.assert_allclose(found["discrete_sae_edges"][:4], mean, atol=1e-6)
    assert np.ptp(found["discrete_sae"]) > 0


def test_the_score_is_zero_on_average_where_labels_mean_nothing() -> None:
    codes = torch.randint(0, 6, (2, 8, 400), generator=Generator().manual_seed(0))
    own = torch.arange(16).reshape(2, 8, 1)
    alone = torch.zeros(2, 8, 1, dtype=torch.long)
    alone[1] = 1
    score = edges(torch.cat((codes, own, alone), -1)).diagonal()
    assert abs(float(score[:400].mean())) < 0.01
    assert float(score[400]) == 0  # a code of its own for every prompt
    assert float(score[401]) == pytest.approx(1 - 2 * 8 * 0.5**8 / 8)


def test_heads_count_by_how_much_they_change_and_not_by_their_size() -> None:
    z = torch.randn(2, 5, 7, 4, dtype=torch.float64)
    z[:, :, 0] = 3.0
    sizes = torch.rand(7, 1, dtype=torch.float64) * 100 + 0.01
    torch.testing.assert_close(scaled(z * sizes), scaled(z))
    assert not scaled(z)[:, :, 0].any()
    assert not scaled(torch.zeros(2, 3, 1, 4)).any()


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_backends_agree_and_seeds_decide(backend: str) -> None:
    probe = pairs(opened("llama"))
    one, two = (studied(probe, opened("llama", name)) for name in ("hf", backend))
    for name, rows in one.items():
        torch.testing.assert_close(rows, two[name], atol=1e-4, rtol=0)
        assert torch.equal(rows, studied(probe, opened("llama"))[name])
    other = studied(dataclasses.replace(probe, seed=1), opened("llama"))
    assert torch.equal(other["discrete_sae"][0], one["discrete_sae"][1])
    assert not torch.equal(one["discrete_sae"][0], one["discrete_sae"][1])


@pytest.mark.parametrize(("cut", "kept"), [(3, 3), (PROMPTS + 2, PROMPTS + 1)])
def test_a_study_that_was_cut_off_comes_to_the_same(tmp_path: Path, cut: int, kept: int) -> None:
    model, steps = opened("llama"), itertools.count()

    def stop(done: int, total: int) -> None:
        if next(steps) == cut:
            raise KeyboardInterrupt

    probe = pairs(model)
    (tmp_path / "partial").mkdir()
    with pytest.raises(KeyboardInterrupt):
        studied(probe, model, Work(tmp_path, "key", stop))
    assert len(list(tmp_path.glob("partial/*"))) == kept
    again, whole = studied(probe, model, Work(tmp_path, "key")), studied(probe, model)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


# ---- the autoencoder -----------------------------------------------------------------------


def test_an_autoencoder_finds_what_vectors_are_made_of() -> None:
    g = Generator().manual_seed(0)
    true = torch.nn.functional.normalize(torch.randn(12, 32, generator=g).double(), dim=-1)
    which = torch.randint(0, 12, (600,), generator=g)
    x = true[which] * (0.5 + torch.rand(600, 1, generator=g))
    losses: list[float] = []
    training = Training(24, 0.02, 200, 256, 0.01)
    coder = training.run(x, 0, lambda so_far: losses.append(so_far[-1]))
    assert losses[-1] < 0.1 * losses[0]
    torch.testing.assert_close(coder.decoder.norm(dim=-1), torch.ones(24).double())
    codes = coder.codes(x)
    said = {(int(code), int(i)) for code, i in zip(codes, which, strict=True)}
    assert len(said) == len({code for code, _ in said})  # no two directions share a code
    read = coder.features(x) @ coder.decoder + coder.center
    assert float((read - x).square().sum() / x.square().sum()) < 0.05
    assert coder.alive(x).sum() >= 12


def test_no_feature_is_a_code_of_its_own_and_dead_ones_are_seen() -> None:
    eye = torch.eye(2)
    coder = SparseAutoencoder(eye, torch.tensor([-0.5, -0.5]), eye, torch.zeros(2))
    x = torch.tensor([[1.0, 0.2], [0.1, 0.3], [-1.0, 0.4]])
    assert coder.codes(x).tolist() == [0, SILENT, SILENT]
    assert coder.alive(x).tolist() == [True, False]


# ---- negatives -----------------------------------------------------------------------------


def test_negatives_lack_what_the_answer_follows_from() -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    probe = DiscreteSae()
    for name, spans in (("ioi", ["subject_1"]), ("docstring", ["described_0", "described_1"])):
        family = Questions(tasks=(name,), samples=12)
        items = asked(family, family.prompts(tokenizer), tokenizer)
        assert all(item.wrong for item in items)
        for item, negative in zip(items, emptied(items, probe.removed), strict=True):
            assert negative is not None
            before, after = item.prompt.token_ids, negative.token_ids
            moved = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
            inside = {i for span in spans for i in range(*item.prompt.span(span))}
            assert inside <= set(moved)
            assert not {after[i] for i in moved} & {*before}
            assert len({after[i] for i in moved}) == len(moved)
    twins = Questions(tasks=("greater_than",), samples=3).items(tokenizer)
    assert emptied(twins, probe.removed) == [item.corrupt for item in twins]


def test_a_prompt_that_no_other_can_lend_tokens_has_no_negative() -> None:
    one, two = Prompt((1, 5, 6), {"x": (1, 2)}), Prompt((1, 6, 7), {"x": (1, 2)})
    three = Prompt((1, 8, 9, 5), {"x": (1, 3)})
    first, second, third = emptied([Item(one), Item(two), Item(three)], ("x",))
    assert first is None  # 6 stands in it, and the third's span is longer
    assert second is not None
    assert second.token_ids == (1, 5, 7)
    assert third is None


# ---- what is refused -----------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused() -> None:
    model = opened("llama")
    with pytest.raises(HeadscopeError, match="'discrete_sae' needs features, steps"):
        DiscreteSae(repeats=0)
    plain = DiscreteSae(prompts=REPEATED)
    with pytest.raises(HeadscopeError, match=r"'discrete_sae' counts prompts.*no 'answer'"):
        plain.check(plain.prompts.prompts(model.tokenizer)[0])
    probe = pairs(model)
    prompts = probe.prompts.prompts(model.tokenizer)
    alone = dataclasses.replace(probe, negatives=None)
    with pytest.raises(HeadscopeError, match="nothing to hold its prompts against: prompt 1 has"):
        alone.check_prompts(model, prompts)
    with pytest.raises(HeadscopeError, match=r"at least 20 prompts .* 8 of 8 have a negative"):
        dataclasses.replace(probe, least=20).check_prompts(model, prompts)
    probe.check_prompts(model, prompts)
    wrong = [dataclasses.replace(prompt, answer_ids=(91,)) for prompt in prompts]
    with pytest.raises(HeadscopeError, match="0 of 8 are answered rightly"):
        probe.study(model, wrong, Work())
    with pytest.raises(HeadscopeError, match="loss of its autoencoder does not fall"):
        dataclasses.replace(probe, lr=100.0, steps=2).study(model, prompts, Work())
    bill = probe.bill(model, prompts)
    assert (bill.forward, bill.backward, bill.tokens) == (16, 0, 12)
