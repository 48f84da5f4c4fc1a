"""Gates: what they are trained on by hand, planted KV heads, memory, and going on after a cut."""

from dataclasses import replace
from pathlib import Path

import answered
import numpy as np
import pytest
import torch
from conftest import opened
from organism_prompts import _Haystack
from organism_truths import COPYING_INDUCTION
from organisms import Organism, learned_position_organism, whole_organism
from sklearn.metrics import roc_auc_score
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close

import headscope
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.engines import Attended, dense
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.patterns import Streaming
from headscope.probes.duo_gate import DuoGate
from headscope.probes.gate_training import GateTraining, Recipe
from headscope.probes.gradients import frozen
from headscope.prompts import Prompt, Repeated
from headscope.stack import Attend

SINK, WINDOW = 2, 6
RECIPE = Recipe(Streaming(SINK, WINDOW), steps=4, lr=0.1, reg_weight=0.05, seed=0)
FAR = COPYING_INDUCTION  # what the haystack's answer comes from
# Sixty tokens are far enough for a window of eight, and a step on them takes half as long.
HAYSTACK = _Haystack(samples=6, sentences=7, length=6)
BUILDERS = {
    "whole": whole_organism,
    "noisy": lambda seed: whole_organism(seed, noise=0.15),
    "learned": learned_position_organism,
}


def prompts(count: int = 3) -> list[Prompt]:
    return answered.prompts(count, 40, seed=1)


def area(organism: Organism, gates: np.ndarray) -> float:
    """The AUC of KV heads that hold a head of FAR against all others, [layer, kv_head]."""
    group = len(organism.kinds) // gates.size
    high = [
        any(organism.kinds[layer, kv * group + i] in FAR for i in range(group))
        for layer, kv in np.ndindex(gates.shape)
    ]
    return float(roc_auc_score(high, gates.ravel()))


@pytest.mark.parametrize(
    ("builder", "seed"),
    [*(("whole", s) for s in range(20)), *((b, s) for b in ("noisy", "learned") for s in range(2))],
)
def test_planted_kv_heads_keep_their_gates(builder: str, seed: int) -> None:
    organism = BUILDERS[builder](seed)
    model = headscope.load(organism.hf, organism.tokenizer)
    family = replace(HAYSTACK, seed=seed)
    probe = DuoGate(prompts=family, sink=1, window=8, steps=8, lr=0.2)
    gates = headscope.scan(model, [probe])["duo_gate"]
    assert area(organism, gates.by_kv_head(model.n_kv_heads)) >= 0.95


def by_hand(model: HeadModel, prompt: Prompt, gates: Tensor) -> float:
    """The distillation loss in two passes over dense patterns, in float64."""
    ids = torch.tensor([[*prompt.token_ids, *prompt.answer_ids[:-1]]])
    n, full = ids.shape[1], {}
    i, j = torch.arange(n)[:, None], torch.arange(n)

    def z(a: Attention, seen: Tensor) -> Tensor:
        k, v = (x[0].double().repeat_interleave(a.group, 0) for x in (a.k, a.v))
        logits = (a.q[0].double() @ k.mT * a.scale).masked_fill(~seen, -torch.inf)
        return logits.softmax(-1) @ v

    def teacher(a: Attention, _: Attend) -> Attended:
        full[a.layer] = z(a, j <= i)
        return Attended(full[a.layer].to(a.q.dtype)[None], a)

    def student(a: Attention, _: Attend) -> Attended:
        stream = z(a, (j <= i) & ((j < SINK) | (i - j < WINDOW)))
        alpha = gates[a.layer].double().repeat_interleave(a.group)[:, None, None]
        return Attended((alpha * full[a.layer] + (1 - alpha) * stream).to(a.q.dtype)[None], a)

    hidden = []
    handle = model.final_norm.register_forward_hook(lambda module, args, out: hidden.append(out))
    for around in (teacher, student):
        with model.entered(around):
            model(ids)
    handle.remove()
    one, other = (h[0, len(prompt) - 1 :].double() for h in hidden)
    return float(((one - other).square().sum(-1) / one.square().sum(-1)).mean())


@pytest.mark.parametrize("name", ["llama", "llama_mha", "llama_mqa"])
def test_the_loss_and_its_slopes_are_those_by_hand(name: str) -> None:
    model = headscope.load(tiny_model(name).double(), tiny_tokenizer())
    (prompt,) = prompts(1)
    training = GateTraining(model, RECIPE, [prompt])
    with torch.no_grad():
        training.gates.copy_(torch.rand(training.gates.shape))
    gates = training.gates.detach().clone()
    with frozen(model):
        loss = training._distillation(prompt)
        (slopes,) = torch.autograd.grad(loss, [training.gates])
    assert_close(float(loss), by_hand(model, prompt, gates), atol=1e-6, rtol=1e-5)
    for place in [(0, 0), (1, gates.shape[1] - 1), (2, 0)]:
        step = torch.zeros_like(gates)
        step[place] = 1e-3
        moved = [by_hand(model, prompt, gates + sign * step) for sign in (1, -1)]
        assert_close(float(slopes[place]), (moved[0] - moved[1]) / 2e-3, atol=1e-5, rtol=2e-3)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_backends_train_the_same_gates(backend: str) -> None:
    def trained(name: str) -> Tensor:
        training = GateTraining(opened("llama", name), RECIPE, prompts())
        while training.done < RECIPE.steps:
            training.step()
        return training.gates.detach()

    assert_close(trained(backend), trained("hf"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "mistral", "gpt2"])
def test_attention_inside_one_pattern_equals_the_definition(name: str, padded: bool) -> None:
    """Values and gradients of the engine beside the definition, over several blocks of rows."""
    seen: list[Attention] = []
    with opened(name).observed(lambda attended: seen.append(attended.attention)):
        opened(name)(torch.randint(3, 90, (2, 20)))
    for layer in seen:
        generator = torch.Generator().manual_seed(layer.layer)
        q, k, v = (
            torch.randn(*x.shape[:2], 300, x.shape[3], generator=generator).requires_grad_(True)
            for x in (layer.q, layer.k, layer.v)
        )
        positions = torch.arange(300).repeat(2, 1)
        if padded:
            positions[1] = (positions[1] - 30).clamp(min=-1)
        slots = Slots(0, 0, padded)
        a = replace(
            layer, q=q, k=k, v=v, query_positions=positions, key_positions=positions, mask=None,
            slots=slots, known_lse=None, hidden=None, rope=None, run=None, cache=None,
        ).with_pattern(Streaming(3, 20))  # fmt: skip
        with torch.enable_grad():
            found, want = dense(a).z, a.z()
            weights = torch.randn(found.shape, generator=generator)
            slopes = torch.autograd.grad((found * weights).sum(), [q, k, v])
            wanted = torch.autograd.grad((want * weights).sum(), [q, k, v])
        assert_close(found, want, atol=1e-5, rtol=1e-4)
        for slope, other in zip(slopes, wanted, strict=True):
            assert_close(slope, other, atol=1e-4, rtol=1e-3)


def test_nothing_square_is_kept_for_the_backward_pass() -> None:
    answered.nothing_square_is_kept(
        lambda model, prompt: GateTraining(model, RECIPE, [prompt]).step()
    )


def test_a_mask_that_all_heads_share_has_no_axis_of_heads(llama: HeadModel) -> None:
    seen: list[Attention] = []
    with llama.observed(lambda attended: seen.append(attended.attention)):
        llama(list(range(3, 33)))
    rows = torch.arange(30)
    for heads, size in ((None, 1), ([0], llama.n_heads)):
        (edit,) = seen[0].with_pattern(Streaming(3, 9), heads).edits
        assert edit.logits(seen[0], rows[:, None], rows).shape == (1, size, 30, 30)


def test_gates_of_a_bfloat16_model_are_trained_in_float32() -> None:
    hf = tiny_model("llama").to(torch.bfloat16)
    training = GateTraining(headscope.load(hf, tiny_tokenizer()), RECIPE, prompts())
    whole = GateTraining(opened("llama"), RECIPE, prompts())
    while training.done < RECIPE.steps:
        training.step()
        whole.step()
    assert training.gates.dtype == torch.float32
    assert_close(training.losses, whole.losses, atol=1e-3, rtol=0)
    assert not (training.gates == training.gates.bfloat16()).all()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_layers_on_two_devices_give_the_same_slopes(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    first = ("model.embed_tokens", "model.rotary_emb", "model.layers.0")
    second = ("model.layers.1", "model.layers.2", "model.norm", "lm_head")
    places = dict.fromkeys(first, 0) | dict.fromkeys(second, 1)
    found = []
    for model in (headscope.load(tmp_path, device_map=places), opened("llama")):
        training = GateTraining(model, RECIPE, prompts())
        with torch.no_grad():
            training.gates.fill_(0.5)
        training.step()
        found.append((training.losses[0], training.gates.grad.cpu()))
    assert_close(found[0], found[1], atol=1e-5, rtol=1e-3)


def test_a_training_that_was_cut_off_ends_the_same(tmp_path: Path) -> None:
    model = opened("llama")
    probe = DuoGate(prompts=_Given(samples=3), sink=SINK, window=WINDOW, steps=7, lr=0.1, repeats=2)
    whole = headscope.scan(model, [probe])["duo_gate"].values

    def stop(key: str, done: int, total: int) -> None:
        assert total == 14
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, [probe], out=tmp_path / "run", progress=stop)
    steps: list[int] = []
    head_map = headscope.scan(
        model, [probe], out=tmp_path / "run", progress=lambda _, done, __: steps.append(done)
    )
    np.testing.assert_array_equal(head_map["duo_gate"].values, whole)
    assert steps[0] == 7
    assert not {8, 9, 10, 11} & set(steps)  # five steps were kept
    assert not np.array_equal(whole[0], whole[1])
    assert (whole.reshape(2, 3, 2, 3) == whole.reshape(2, 3, 2, 3)[..., :1]).all()


class _Given(Repeated):
    """Random tokens, and an answer."""

    def prompt(self, index: int, tokenizer: object) -> Prompt:
        return prompts(self.samples)[index]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": Repeated(samples=2, block=20, times=2)}, "rows that make an answer"),
        ({"prompts": _Given(samples=2), "window": 60}, "hide nothing in a prompt of 40"),
        ({"prompts": _Given(samples=2), "window": 6, "lr": 1e-9}, "does not fall"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(HeadscopeError, match=said):
        headscope.scan(opened("llama"), [DuoGate(**{"sink": SINK, "steps": 3} | changes)])


def test_fields_that_make_no_sense_are_refused() -> None:
    for changes in ({"steps": 1}, {"window": 0}, {"repeats": 0}, {"sink": -1}):
        with pytest.raises(HeadscopeError, match="repeats of 1 or more, and at least 2 steps"):
            DuoGate(**changes)
    for field in ("lr", "reg_weight"):
        for value in (0.0, float("nan"), float("inf")):
            with pytest.raises(HeadscopeError, match=f"needs {field} above 0, not {value}"):
                DuoGate(**{field: value})


def test_a_model_without_gradients_is_refused() -> None:
    hf = tiny_model("llama")
    model = headscope.load(hf, tiny_tokenizer())
    hf.model.layers[2].register_forward_hook(lambda module, args, out: out.detach())
    probe = DuoGate(prompts=_Given(samples=2), sink=SINK, window=WINDOW)
    with pytest.raises(HeadscopeError, match="'duo_gate' differentiates the model"):
        headscope.scan(model, [probe])


def test_slopes_that_are_no_numbers_move_no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    training = GateTraining(opened("llama"), RECIPE, prompts())
    training.step()
    before = training.state()
    monkeypatch.setattr(
        training,
        "_distillation",
        lambda prompt: (training.gates - training.gates).abs().sqrt().sum(),
    )
    training.step()
    assert np.isnan(training.losses[-1])
    for name in ("gates", "mean", "square"):
        np.testing.assert_array_equal(training.state()[name], before[name])


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_there(tmp_path: Path) -> None:
    hf = tiny_model("llama")
    model = headscope.load(hf, tiny_tokenizer())
    probe = DuoGate(prompts=_Given(samples=2), sink=SINK, window=WINDOW, steps=8, lr=0.1)

    def spoil(key: str, done: int, total: int) -> None:
        if done == 6:
            hf.model.norm.weight.fill_(torch.nan)

    with pytest.raises(HeadscopeError, match="stops at step 7: the loss of its gates is nan"):
        headscope.scan(model, [probe], out=tmp_path / "run", progress=spoil)
    assert list((tmp_path / "run" / "partial").glob("*repeat-0.safetensors"))
