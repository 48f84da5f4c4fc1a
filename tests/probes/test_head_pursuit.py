"""Head Pursuit against planted writers of words, and against dense least squares."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from sklearn.metrics import roc_auc_score
from tiny import VOCAB, tiny_model, tiny_tokenizer
from torch import Generator, Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.concept import Concept
from headscope.interventions.rescale_concept import RescaleConcept
from headscope.model import HeadModel
from headscope.probes.head_pursuit import HeadPursuit
from headscope.probes.study import Work
from headscope.prompts import Prompt, Repeated
from headscope.prompts.concept_questions import ConceptQuestions
from headscope.pursuit import pursue

WORDS = tuple(f"w{i}" for i in range(30, 42))
OTHER = tuple(f"w{i}" for i in range(50, 62))
BLOCKS = Repeated(samples=20, block=6, times=2)
ON_BLOCKS = HeadPursuit(words=WORDS, prompts=BLOCKS, atoms=8, controls=10)
FEW = Repeated(samples=4, block=6, times=2)

# ---- planted writers -----------------------------------------------------------------------

LAYERS, HEADS, D_HEAD, WIDTH = 3, 8, 8, 96
NEAR_MISSES = ("random", "other", "constant", "one_word", "vocabulary", "common")


def planted(seed: int, noise: float, hard: bool) -> tuple[HeadModel, Tensor]:
    """A Llama, and which of its heads write the concept's words, in proportions that vary."""
    g = Generator().manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=D_HEAD,
        attention_bias=True, tie_word_embeddings=False, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    hf = LlamaForCausalLM(config).eval()
    for parameter in hf.parameters():
        parameter.normal_(std=0.3, generator=g)
    gain = 1 + 0.5 * torch.rand(WIDTH, generator=g)
    hf.model.norm.weight.copy_(gain)
    unembed = torch.randn(VOCAB, WIDTH, generator=g)
    if hard:  # all words have something in common, as they do in real models
        unembed += 1.5 * torch.randn(WIDTH, generator=g)
    hf.lm_head.weight.copy_(unembed)
    atoms = torch.nn.functional.normalize(unembed * gain, dim=-1)
    words, other = (atoms[[int(w[1:]) for w in some]] for some in (WORDS, OTHER))
    kinds = ["concept"] * 4
    misses = NEAR_MISSES if hard else NEAR_MISSES[:1]
    kinds += [misses[i % len(misses)] for i in range(LAYERS * HEADS - 4)]
    order = torch.randperm(len(kinds), generator=g).tolist()
    kinds = [kinds[at] for at in order]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    layers: Any = hf.model.layers
    for layer, block in enumerate(layers):
        at = block.self_attn
        at.v_proj.bias.zero_()
        for head in range(HEADS):
            part = slice(head * D_HEAD, (head + 1) * D_HEAD)
            kind = kinds[layer * HEADS + head]
            to = {
                "concept": lambda: normal(D_HEAD, len(words)) @ words,
                "random": lambda: normal(D_HEAD, WIDTH),
                "other": lambda: normal(D_HEAD, len(other)) @ other,
                "constant": lambda: normal(D_HEAD, WIDTH),
                "one_word": lambda: normal(D_HEAD, WIDTH),
                "vocabulary": lambda: atoms[torch.randint(VOCAB, (D_HEAD,), generator=g)],
                "common": lambda: (
                    normal(D_HEAD, 1) * unembed.mean(0) * gain + normal(D_HEAD, WIDTH)
                ),
            }[kind]()  # fmt: skip
            if kind == "constant":
                at.v_proj.weight[part] = 0
                at.v_proj.bias[part] = 1
            if kind == "one_word":  # the same word on every prompt, about as long as the rest
                at.v_proj.weight[part.start] = 0
                at.v_proj.bias[part.start] = 1
                to[0] = words[0] * to[1:].norm()
            at.o_proj.weight[:, part] = 0.1 * to.T / to.norm(dim=1).mean()
            scale = noise * at.o_proj.weight[:, part].std()
            at.o_proj.weight[:, part] += scale * normal(WIDTH, D_HEAD)
    truth = torch.tensor([kind == "concept" for kind in kinds]).view(LAYERS, HEADS)
    return headscope.load(hf, tiny_tokenizer()), truth


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("noise", "hard"), [(0.1, False), (0.5, True)])
def test_planted_writers_of_a_concept_are_found(seed: int, noise: float, hard: bool) -> None:
    model, truth = planted(seed, noise, hard)
    head_map = headscope.scan(model, [replace(ON_BLOCKS, seed=seed)], seed=seed)
    area = roc_auc_score(truth.flatten(), head_map["head_pursuit"].mean().ravel())
    assert area >= 0.95
    others = head_map["head_pursuit"].mean()[~truth.numpy()]
    if not hard:  # without a concept it is 0 on average, whatever the size of the dictionary
        assert abs(others.mean()) < 0.03


# ---- the definition ------------------------------------------------------------------------


def somp(H: np.ndarray, D: np.ndarray, steps: int) -> tuple[list[int], np.ndarray]:
    """By least squares at every step; H_S."""
    support: list[int] = []
    fitted = np.zeros_like(H)
    for _ in range(min(steps, len(D))):
        strength = np.abs(D @ (H - fitted).T).sum(1)
        strength[support] = -1
        support.append(int(strength.argmax()))
        basis = D[support]
        fitted = H @ np.linalg.pinv(basis) @ basis
    return support, fitted


def explained(H: np.ndarray, D: np.ndarray, steps: int) -> float:
    return float((somp(H, D, steps)[1] ** 2).sum() / (H**2).sum())


def normed(name: str, model: HeadModel) -> tuple[np.ndarray, bool]:
    """The gain of the final norm, from its weight, and whether it centres."""
    norm: Any = model.final_norm
    weight = norm.weight.double().numpy()
    return (1 + weight if "gemma" in name else weight), name in ("gpt2", "gpt_neox", "opt")


def by_hand(name: str, probe: HeadPursuit, backend: str = "hf") -> np.ndarray:
    """Explained of all heads, last rows, out of outputs that the layers' own modules made."""
    model = opened(name, backend)
    seen: list[Attended] = []
    ids = [prompt.token_ids for prompt in probe.prompts.prompts(model.tokenizer)]
    found = []
    for prompt in ids:
        with model.observed(seen.append):
            model(list(prompt))
    gain, centres = normed(name, model)
    D = model.unembed.double().numpy().T[[int(str(w)[1:]) for w in probe.words]]
    D = D if probe.plain else D * gain
    for place, layer in enumerate(model.layers):
        at = model.weights(layer)
        W_O = at.W_O.double().numpy()
        z = np.stack([a.z[0, :, -1].double().numpy() for a in seen[place :: len(model.layers)]])
        H = np.einsum("nhd,hdm->hnm", z, W_O)
        if "gemma" in name:
            behind = model.hf.model.layers[layer].post_attention_layernorm
            root = np.sqrt((H.sum(0) ** 2).mean(-1, keepdims=True) + behind.eps)
            H = H / root * (1 + behind.weight.double().numpy())
        atoms = D
        if centres and not probe.plain:
            H, atoms = H - H.mean(-1, keepdims=True), D - D.mean(-1, keepdims=True)
        if probe.centred:
            H = H - H.mean(1, keepdims=True)
        atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
        found.append([explained(head, atoms, probe.atoms) for head in H])
    return np.array(found)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {}),
        ("llama_mha", {"centred": False}),
        ("qwen3", {"plain": True, "centred": False}),
        ("gemma2", {}),
        ("gemma3", {"centred": False}),
        ("gpt2", {}),
        ("opt", {"plain": True}),
    ],
)
def test_scores_are_their_definition(name: str, options: dict[str, Any]) -> None:
    prompts = replace(FEW, samples=7)
    probe = HeadPursuit(words=WORDS, prompts=prompts, atoms=5, controls=1, **options)
    found = headscope.scan(opened(name), [probe])
    want = by_hand(name, probe)
    np.testing.assert_allclose(found["head_pursuit_explained"].mean(), want, atol=1e-4)
    chance, score = (found[n].mean() for n in ("head_pursuit_chance", "head_pursuit"))
    np.testing.assert_allclose(score, want - chance, atol=1e-4)
    assert ((chance > 0) & (chance < 1)).all()


def test_the_pursuit_is_least_squares_step_by_step() -> None:
    g = np.random.default_rng(0)
    W, D = g.normal(size=(3, 4, 20)), g.normal(size=(12, 20))
    D[7] = -D[3]  # an atom again, which must not be chosen twice
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    z = g.normal(size=(15, 3, 4))
    reads, gram = torch.from_numpy(W @ D.T), torch.from_numpy(D @ D.T)
    for steps in (1, 4, 11):
        found = pursue(torch.from_numpy(z), reads, gram, steps)
        for head in range(3):
            support, fitted = somp(z[:, head] @ W[head], D, steps)
            assert found.support[head].tolist() == support
            np.testing.assert_allclose(found.explained[head], (fitted**2).sum(1), atol=1e-9)
    more = pursue(torch.from_numpy(z), reads, gram, 99)
    assert (more.support == -1).sum(1).tolist() == [1, 1, 1]
    assert not pursue(torch.zeros(15, 3, 4).double(), reads, gram, 3).explained.any()


def test_chunks_of_heads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    g = Generator().manual_seed(1)
    z, reads = (
        torch.randn(9, 5, 4, generator=g).double(),
        torch.randn(5, 4, 7, generator=g).double(),
    )
    D = torch.nn.functional.normalize(torch.randn(7, 10, generator=g).double(), dim=-1)
    whole = pursue(z, reads, D @ D.T, 4)
    monkeypatch.setattr("headscope.pursuit._CHUNK", 1)
    torch.testing.assert_close(pursue(z, reads, D @ D.T, 4).explained, whole.explained)


def test_one_atom_on_one_position_is_the_logit_lens() -> None:
    """The word chosen has the largest product, and is all that is explained."""
    h, D = torch.randn(1, 1, 6).double(), torch.randn(9, 6).double()
    D = torch.nn.functional.normalize(D, dim=-1)
    found = pursue(h, torch.eye(6).double()[None] @ D.T, D @ D.T, 1)
    products = D @ h[0, 0]
    assert int(found.support) == int(products.abs().argmax())
    torch.testing.assert_close(found.explained[0, 0], products.abs().max().square())


def test_weights_that_do_the_same_have_the_same_score() -> None:
    """The final norm's gain may stand in the unembedding; a head's z may be in any basis."""
    want = headscope.scan(opened("llama"), [replace(ON_BLOCKS, prompts=FEW)])
    hf = tiny_model("llama")
    hf.lm_head.weight.mul_(hf.model.norm.weight * 3)
    hf.model.norm.weight.fill_(1 / 3)
    found = headscope.scan(headscope.load(hf, tiny_tokenizer()), [replace(ON_BLOCKS, prompts=FEW)])
    for name in HeadPursuit.score_names():
        np.testing.assert_allclose(found[name].values, want[name].values, atol=1e-4)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_every_backend_says_the_same(name: str, backend: str) -> None:
    probe = replace(ON_BLOCKS, prompts=FEW)
    maps = [headscope.scan(opened(name, each), [probe]) for each in ("hf", backend)]
    for score, values in maps[0].scores.items():
        np.testing.assert_allclose(values.values, maps[1][score].values, atol=1e-4)


# ---- rows ----------------------------------------------------------------------------------


def prompts(*ids: tuple[int, ...], answer: tuple[int, ...] = ()) -> list[Prompt]:
    return [Prompt(each, answer_ids=answer) for each in ids]


def test_rows_are_prompts_and_their_mean_is_the_share() -> None:
    model = opened("llama")
    probe = replace(ON_BLOCKS, positions="mentions")
    some = prompts((3, 30, 5, 41, 31, 42), (3, 4, 5), (32, 9, 33), answer=(60,))
    found = probe.study(model, some, Work())["head_pursuit_explained"]
    assert found.shape == (2, 3, 6)  # nothing is mentioned in the second
    as_last = prompts((3,), (3, 30, 5), (3, 30, 5, 41), (32, 9))
    pooled = replace(probe, positions="last").study(model, as_last, Work())
    want = pooled["head_pursuit_explained"].mean(0)
    torch.testing.assert_close(found.mean(0), want, atol=1e-5, rtol=1e-4)
    spoken = prompts((3, 4, 5), (32, 9), answer=(30,))
    last = replace(probe, positions="last").study(model, spoken, Work())
    torch.testing.assert_close(probe.study(model, spoken, Work()), last)


def test_rows_are_drawn_where_there_are_too_many() -> None:
    model, some = opened("llama"), prompts(tuple(range(3, 33)), tuple(range(33, 63)))
    probe = replace(ON_BLOCKS, positions="all", most=10)
    rows = probe._rows(model, some)
    assert [len(row) for row in rows] == [5, 5]
    assert rows[0] != rows[1]
    assert all(row == sorted({*row}) for row in rows)
    assert rows == probe._rows(model, some) != replace(probe, seed=1)._rows(model, some)
    assert [len(row) for row in replace(probe, most=99)._rows(model, some)] == [30, 30]


def test_it_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, probe = opened("llama"), replace(ON_BLOCKS, prompts=FEW)
    whole, ran, forward = headscope.scan(model, [probe]), [], HeadModel.forward

    def counted(self: HeadModel, ids: object, **options: object) -> Tensor:
        if isinstance(ids, tuple):
            ran.append(ids)
            if len(ran) == 3:
                raise KeyboardInterrupt
        return forward(self, ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(HeadModel, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, [probe], out=tmp_path / "run")
    again = headscope.scan(model, [probe], out=tmp_path / "run")
    assert len(ran) == 3 + 2
    for name, score in whole.scores.items():
        np.testing.assert_array_equal(score.values, again[name].values)


# ---- words and refusals --------------------------------------------------------------------


def test_questions_are_those_of_the_probe_s_concept() -> None:
    assert HeadPursuit(concept="months").prompts == ConceptQuestions(concept="months")
    probe = HeadPursuit(words=("w5", 6))
    assert probe.prompts == ConceptQuestions(words=("w5", 6))
    texts = [opened("llama").decode(p.token_ids) for p in probe.prompts.prompts(tiny_tokenizer())]
    assert len(texts) == 44
    assert "10 words" in str(
        replace(ON_BLOCKS, words=WORDS[:10]).bill(opened("llama"), prompts((3,)))
    )


def test_what_cannot_be_pursued_is_refused() -> None:
    model = opened("llama")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"concept": "colors"}, "no concept named 'colors'. There are colours, numbers, .*words="),
        ({"atoms": 0}, "'head_pursuit' needs atoms and controls of at least 1"),
        ({"controls": 0}, "controls=0"),
        ({"most": 1}, "most of at least 2"),
    ]
    for options, message in refused:
        with pytest.raises(HeadscopeError, match=message):
            HeadPursuit(**options)
    for words, message in (
        (("w5 w6",), "The word 'w5 w6' behind a space is 2 tokens for LlamaForCausalLM"),
        (("green",), "The word 'green' behind a space is unknown"),
        ((97,), "has the tokens 0 to 96"),
        (tuple(range(3, 60)), "57 words with as many others, and LlamaForCausalLM has 37"),
    ):
        with pytest.raises(HeadscopeError, match=message):
            headscope.scan(model, [replace(ON_BLOCKS, words=words)])
    with pytest.raises(HeadscopeError, match="Of the 24 words of 'colours', 0 are one token for L"):
        headscope.scan(model, ["head_pursuit"])
    with pytest.raises(
        HeadscopeError, match=r"needs at least 2 rows, and .* it reads 1 .* use more"
    ):
        headscope.scan(model, [ON_BLOCKS], samples=1)
    with pytest.raises(HeadscopeError, match=r"reads 0 .*or positions='last'"):
        replace(ON_BLOCKS, positions="mentions").check_prompts(model, prompts((3, 4, 5)))


def test_a_gate_before_the_output_is_refused() -> None:
    hf = tiny_model("llama")
    for block in hf.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,))
    model = headscope.load(hf, tiny_tokenizer())
    with pytest.raises(HeadscopeError, match=r"'head_pursuit' .* LlamaForCausalLM gates or norm"):
        headscope.scan(model, [ON_BLOCKS])


def test_heads_that_it_finds_are_those_that_move_the_words() -> None:
    """Scaled to nothing, they change logits of the concept more than other logits."""
    model, _ = planted(0, 0.1, hard=False)
    score = headscope.scan(model, [ON_BLOCKS])["head_pursuit"].mean().ravel()
    words = Concept.of(model, WORDS[:8])
    tokens = torch.randint(3, VOCAB, (4, 12))
    plain = model(tokens)

    def ratio(order: np.ndarray) -> float:
        heads = [divmod(int(at), HEADS) for at in order[:4]]
        with RescaleConcept(heads, words, 0.0, whole=True)(model):
            change = (model(tokens) - plain).abs()[:, -1]
        return float(change[:, list(words.tokens)].mean() / change.mean())

    assert ratio(np.argsort(-score)) > ratio(np.argsort(score))
