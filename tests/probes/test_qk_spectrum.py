"""The spectrum of QK maps: planted singular values, dense matrices, every backend."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import opened
from sklearn.metrics import roc_auc_score
from tiny import CONFIGS, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import headscope
from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.norms import layer_inputs
from headscope.probes.qk_spectrum import QkSpectrum
from headscope.probes.study import Work
from headscope.weights import HeadWeights

QK_NORM = ("qwen3", "gemma3")
FIT = [name for name in CONFIGS if name not in QK_NORM]
WIDE = 48  # of the planted models' stream
HEADS, KV_HEADS, DIM = 6, 2, 10


def scan(model: headscope.HeadModel, **parameters: int) -> headscope.HeadMap:
    return headscope.scan(model, [QkSpectrum(**parameters)])


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator).double()).Q


def planted_llama(seed: int, noise: float) -> tuple[PreTrainedModel, dict, set]:
    """A Llama whose gains vary, with heads of a few directions and of many, loud and quiet."""
    draw = torch.Generator().manual_seed(seed)
    config = LlamaConfig(
        vocab_size=97, hidden_size=WIDE, intermediate_size=16, num_hidden_layers=2, head_dim=DIM,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=64,
    )  # fmt: skip
    hf = LlamaForCausalLM(config).eval()
    sigmas, few = {}, set()
    for layer, block in enumerate(hf.model.layers):
        gain = 0.5 + torch.rand(WIDE, generator=draw).double()
        block.input_layernorm.weight.copy_(gain)
        keys, queries = [], []
        for _ in range(KV_HEADS):
            keys.append(orthonormal(WIDE, DIM, draw))
        for head in range(HEADS):
            # Every other head has three directions, whatever its size: a near miss for what
            # reads norms. One of the others falls off slowly, one is flat.
            sigma = torch.rand(DIM, generator=draw).double() * 0.5 + 0.5
            if (head + layer + seed) % 2:
                few.add((layer, head))
                sigma[3:] = 0
            sigma *= 10 ** float(torch.rand((), generator=draw) * 2 - 1)
            sigmas[layer, head] = sigma.sort(descending=True).values
            u, rotation = orthonormal(WIDE, DIM, draw), orthonormal(DIM, DIM, draw)
            # Omega = u diag(sigma) (key rotation)^T.
            queries.append(u * sigma @ rotation.T * DIM**0.5)
        for linear, parts in ((block.self_attn.q_proj, queries), (block.self_attn.k_proj, keys)):
            weights = [(part / gain[:, None]).T for part in parts]
            noisy = [
                weight + noise * weight.std() * torch.randn(weight.shape, generator=draw)
                for weight in weights
            ]
            linear.weight.copy_(torch.cat(noisy))
    return hf.double(), sigmas, few


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(20))
def test_planted_directions_are_counted(seed: int, noise: float) -> None:
    hf, sigmas, few = planted_llama(seed, noise)
    found = scan(headscope.load(hf, tiny_tokenizer()))
    ranks, places = found["qk_spectrum"].values[0], list(sigmas)
    truth = [place not in few for place in places]
    assert roc_auc_score(truth, [ranks[place] for place in places]) >= 0.95
    if noise:
        return
    for place, sigma in sigmas.items():
        curve = found.curves["qk_singular"][0][place]
        np.testing.assert_allclose(curve, sigma, rtol=1e-4, atol=1e-4 * float(sigma[0]))
        p = (sigma / sigma.sum())[sigma > 0]
        assert ranks[place] == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-4)
        assert found["qk_largest"].values[0][place] == pytest.approx(float(sigma[0]), rel=1e-4)
        assert found["qk_top"].values[0][place] == pytest.approx(
            float(sigma[:4].sum() / sigma.sum()), rel=1e-4
        )


@dataclass(frozen=True, eq=False)
class Dense:
    """One layer's Omega written out, and a pass to hold it against."""

    attention: Attention
    own: HeadWeights
    gain: Tensor
    shift: Tensor
    centred: bool

    @classmethod
    def layers(cls, model: headscope.HeadModel) -> list["Dense"]:
        seen: list[Attention] = []
        with model.observed(lambda attended: seen.append(attended.attention)):
            model(torch.arange(5, 17)[None])
        found = []
        for attention, at in zip(seen, layer_inputs(model), strict=True):
            norm = at.norm
            assert norm is not None
            gain = norm.weight.double() + (1 if "Gemma" in type(norm).__name__ else 0)
            shift = getattr(norm, "bias", None)
            shift = torch.zeros_like(gain) if shift is None else shift.double()
            own = model.weights(attention.layer)
            found.append(cls(attention, own, gain, shift, "LayerNorm" in type(norm).__name__))
        return found

    def omega(self, offset: int) -> Tensor:
        """[head, d_model + 1, d_model + 1]."""
        wide = len(self.gain)
        centre = torch.eye(wide).double() - (1 / wide if self.centred else 0)
        axes = torch.cat((centre * self.gain, self.shift[None]))  # of [X, 1], as hidden states
        one = torch.zeros(wide + 1, 1).double()
        one[-1] = 1

        def read(weight: Tensor, bias: Tensor | None, place: int) -> Tensor:
            x = axes @ weight.double() + (0 if bias is None else one * bias[:, None].double())
            rope = self.attention.rope
            places = torch.full((1, len(axes)), place)
            return x if rope is None else rope.rotate(x[None], places)[0]

        q, k = (
            read(self.own.W_Q, self.own.b_Q, offset),
            read(self.own.W_K, self.own.b_K, 0).repeat_interleave(self.attention.group, 0),
        )
        return self.attention.scale * q @ k.mT

    def check_logits(self, offset: int) -> None:
        """[X_i, 1] Omega [X_j, 1] at this distance is the logit of the pass."""
        hidden, group = self.attention.hidden, self.attention.group
        assert hidden is not None
        normal = (hidden[0].double() - self.shift) / self.gain
        normal = torch.cat((normal, torch.ones(len(normal), 1)), 1)
        made = normal @ self.omega(offset) @ normal.T
        k = self.attention.k[0].repeat_interleave(group, 0)
        want, key = self.attention.scale * self.attention.q[0] @ k.mT, torch.arange(12 - offset)
        made, want = made[:, key + offset, key].float(), want[:, key + offset, key]
        torch.testing.assert_close(made, want, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", FIT)
def test_scores_are_those_of_dense_matrices_that_give_the_logits(name: str) -> None:
    model = opened(name)
    for offset in (0,) if name in ("gpt2", "opt") else (0, 7):
        found = scan(model, offset=offset, top=3)
        for layer, dense in enumerate(Dense.layers(model)):
            dense.check_logits(offset)
            omega = dense.omega(offset)
            sigma = torch.linalg.svdvals(omega)[:, : model.d_head]
            p = sigma / sigma.sum(-1, keepdim=True)
            even = (omega + omega.mT) / 2
            want = {
                "qk_spectrum": torch.exp(-(p * p.log()).nan_to_num().sum(-1)),
                "qk_largest": sigma[:, 0],
                "qk_top": p[:, :3].sum(-1),
                "qk_symmetric": even.square().sum((1, 2)) / omega.square().sum((1, 2)),
            }
            for score, values in want.items():
                np.testing.assert_allclose(found[score].values[0, layer], values, rtol=1e-4)
            curve = found.curves["qk_singular"][0, layer]
            np.testing.assert_allclose(curve, sigma, atol=1e-4 * float(sigma.max()))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_backend_has_the_same_spectrum(name: str) -> None:
    maps = [scan(opened(name, backend)) for backend in ("hf", "nnsight", "lens")]
    for other in maps[1:]:
        for score in maps[0].scores:
            np.testing.assert_allclose(maps[0][score].values, other[score].values, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_gain_that_moves_into_the_weights_changes_nothing(name: str) -> None:
    hf = tiny_model(name)
    before = scan(headscope.load(hf, tiny_tokenizer()))
    blocks = hf.transformer.h if name == "gpt2" else hf.model.layers
    for block in blocks:
        norm = block.ln_1 if name == "gpt2" else block.input_layernorm
        if name == "gpt2":
            block.attn.c_attn.bias += norm.bias @ block.attn.c_attn.weight
            block.attn.c_attn.weight *= norm.weight[:, None]
            norm.bias.zero_()
        else:
            for linear in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
                linear.weight *= norm.weight
        norm.weight.fill_(1)
    after = scan(headscope.load(hf, tiny_tokenizer()))
    for score in before.scores:
        np.testing.assert_allclose(before[score].values, after[score].values, rtol=2e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_half_precision_has_nearly_the_same_spectrum(name: str) -> None:
    half = headscope.load(tiny_model(name).bfloat16(), tiny_tokenizer())
    found, whole = scan(half), scan(opened(name))
    for score in whole.scores:
        np.testing.assert_allclose(found[score].values, whole[score].values, rtol=0.02)


def test_a_head_of_zeros_has_no_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("llama")
    own = model.weights(1)
    alive = torch.ones(6, 1, 1).index_fill(0, torch.tensor([0]), 0)
    monkeypatch.setitem(model._weights, 1, dataclasses.replace(own, W_Q=own.W_Q * alive))
    found = scan(model)
    for score in found.scores:
        assert found[score].values[0, 1, 0] == 0
        assert (found[score].values[0, 1, 1:] > 0).all()


def test_a_symmetric_map_matches_contents() -> None:
    hf = tiny_model("llama_mha")
    at = hf.model.layers[0].self_attn
    at.q_proj.weight.copy_(at.k_proj.weight)
    at.q_proj.weight[8:16:2], at.q_proj.weight[9:16:2] = (
        at.k_proj.weight[9:16:2], -at.k_proj.weight[8:16:2],
    )  # fmt: skip
    found = scan(headscope.load(hf, tiny_tokenizer()))["qk_symmetric"].values[0, 0]
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found[1] == pytest.approx(0, abs=1e-5)
    assert (abs(found[[0, 2, 3, 4, 5]] - 1) < 1e-5).all()


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    model = opened("llama")
    whole = QkSpectrum().study(model, [], Work())

    def cut(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QkSpectrum().study(model, [], Work(tmp_path, "k", cut))
    steps: list[int] = []
    again = QkSpectrum().study(model, [], Work(tmp_path, "k", lambda done, _: steps.append(done)))
    assert (tmp_path / "partial" / "k-1.safetensors").exists()
    assert steps == [0, 1, 2, 3]
    for name, values in whole.items():
        torch.testing.assert_close(values, again[name], rtol=0, atol=0)


def test_the_price_names_no_passes() -> None:
    said: list[str] = []
    headscope.scan(opened("llama"), [QkSpectrum()], announce=said.append)
    assert said == ["qk_spectrum starts: 18 QK maps are decomposed, no prompts are read."]


def test_what_has_no_spectrum_is_refused() -> None:
    for name in QK_NORM:
        with pytest.raises(HeadscopeError, match=r"'qk_spectrum'.*layer 0 of .*qk-norm"):
            QkSpectrum().check_model(opened(name))
    with pytest.raises(HeadscopeError, match=r"'qk_spectrum' at an offset of 3.*RoPE.*at 0"):
        QkSpectrum(offset=3).check_model(opened("gpt2"))
    with pytest.raises(HeadscopeError, match="beyond the 128 tokens of"):
        QkSpectrum(offset=128).check_model(opened("llama"))
    for wrong in ({"offset": -1}, {"top": 0}):
        with pytest.raises(HeadscopeError, match="an offset of 0 or more and a top of at least 1"):
            QkSpectrum(**wrong)


def test_a_rotation_of_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("llama")
    monkeypatch.setattr(model.backend.layers[1], "rotary", "it turns oddly")
    with pytest.raises(HeadscopeError, match=r"layer 1 does not allow \(it turns oddly\)"):
        QkSpectrum().check_model(model)


def test_projections_that_cannot_be_found_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("llama")

    def lost(layer: int) -> None:
        raise HeadscopeError("W_Q was not found.")

    monkeypatch.setattr(model, "weights", lost)
    with pytest.raises(HeadscopeError, match=r"'qk_spectrum' reads W_Q and W_K.*W_Q was not found"):
        QkSpectrum().check_model(model)
