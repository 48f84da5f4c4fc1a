"""Directions that are trained, and their files: what conformance does not ask."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from altered.focus_directions import methods as focusing
from altered.iti import methods as itis
from conftest import opened
from interventions.directed import HEADS, PROMPTS, TOKENS, gold, seen, trained
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.concept import Concept
from headscope.interventions.directions import Directions
from headscope.interventions.focus_directions import FocusDirections
from headscope.interventions.output_directions import OutputDirections
from headscope.interventions.rescale_concept import RescaleConcept
from headscope.prompts.base import Prompt


def test_training_is_gradient_descent_on_the_dense_mass(grad: None) -> None:
    model, lr, epochs = opened("llama"), 0.03, 6
    found = Directions.train(model, PROMPTS, HEADS, lr=lr, epochs=epochs, batch=len(PROMPTS))
    kept = [seen(model, prompt) for prompt in PROMPTS]
    for (layer, head), q in zip(HEADS, found.q, strict=True):
        d = torch.zeros(model.d_head, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.AdamW([d], lr=lr)
        for _ in range(epochs):
            masses = [gold(k[layer], p, head, d) for k, p in zip(kept, PROMPTS, strict=True)]
            optimizer.zero_grad()
            (-torch.stack(masses).mean()).backward()
            optimizer.step()
        assert_close(q.double(), d.detach(), atol=2e-4, rtol=1e-3)
        assert float(d.detach().abs().max()) > 0.05


def test_it_moves_attention_to_the_gold_span_by_what_training_says() -> None:
    """In the first layer nothing else differs between training and use."""
    model, heads = opened("llama"), ((0, 3), (0, 0))
    found = Directions.train(model, PROMPTS, heads, lr=0.05, epochs=20, batch=2)
    for factor, said in ((0.0, found.facts.before), (1.0, found.facts.after)):
        masses = []
        with FocusDirections(found, factor=factor)(model):
            for prompt in PROMPTS:
                attention = seen(model, prompt)[0]
                rows = range(len(prompt) - 1, attention.n_queries)
                mass = attention.mass(slice(*prompt.span("gold")), rows)
                masses.append(mass[0, [head for _, head in heads]].mean())
        assert_close(float(torch.stack(masses).mean()), said, atol=1e-5, rtol=1e-4)
    assert found.facts.after > found.facts.before + 0.05


def test_training_is_seeded_and_says_how_far_it_is() -> None:
    model, calls = opened("llama"), list[tuple[int, int]]()

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    one = Directions.train(model, PROMPTS, HEADS, epochs=2, batch=2, seed=5, progress=progress)
    two = Directions.train(model, PROMPTS, HEADS, epochs=2, batch=2, seed=5)
    other = Directions.train(model, PROMPTS, HEADS, epochs=2, batch=2, seed=6)
    assert torch.equal(one.q, two.q)
    assert not torch.equal(one.q, other.q)
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > 2


def test_training_leaves_no_gradient_on_the_model() -> None:
    model = opened("llama")
    Directions.train(model, PROMPTS[:2], HEADS, epochs=1)
    assert all(parameter.grad is None for parameter in model.hf.parameters())


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "at least one prompt"),
        (PROMPTS, {"epochs": 0}, "at least one prompt, epoch"),
        ([replace(PROMPTS[0], spans={})], {}, "no span named 'gold'"),
        ([replace(PROMPTS[0], answer_ids=())], {}, "answer"),
        (PROMPTS, {"heads": ["L7H1"]}, "no head L7H1"),
        (PROMPTS, {"heads": []}, "at least one head"),
        (PROMPTS, {"lr": 3e37, "epochs": 4}, "loss of layer .* smaller lr"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    prompts: Sequence[Prompt], options: dict, message: str
) -> None:
    given = {"heads": HEADS, **options}
    with pytest.raises(HeadscopeError, match=message):
        Directions.train(opened("llama"), prompts, **given)


def test_no_factor_and_no_heads_are_bit_exact_no_ops() -> None:
    model = opened("llama")
    (first, *_) = focusing(model)
    plain = model(TOKENS)
    for method in (
        replace(first, factor=0.0),
        replace(first, count=0),
        replace(first, heads=()),
        replace(itis(model)[0], alpha=0.0, part="all"),
    ):
        with method(model):
            assert torch.equal(model(TOKENS), plain), method


def test_a_factor_that_breaks_a_head_is_caught() -> None:
    model = opened("llama")
    with pytest.raises(HeadscopeError, match="finite factor"):
        replace(focusing(model)[0], factor=float("nan"))
    method = replace(focusing(model)[0], factor=3e38)
    with pytest.raises(HeadscopeError, match="FocusDirections made values in layer"), method(model):
        model(TOKENS)


def exact(attention: Attention) -> Attention:
    """One layer's attention in float64."""
    wide = {name: getattr(attention, name).double() for name in ("q", "k", "v")}
    return replace(attention, **wide, known_lse=None)


def with_key_vector(attention: Attention, vector: Tensor, keys: slice = slice(None)) -> Attention:
    """One vector of each KV head added to rotated keys."""
    k = attention.k.clone()
    k[:, :, keys] += vector[:, None]
    return attention.with_k(k)


@pytest.mark.parametrize("name", ["llama", "llama_mha", "qwen3"])
def test_one_vector_added_to_all_keys_changes_nothing(name: str, grad: None) -> None:
    """q · (k + d) = q · k + q · d: every logit of a row moves alike, which a softmax ignores."""
    model = opened(name)
    for attention in map(exact, seen(model, PROMPTS[0]).values()):
        vector = torch.randn(attention.n_kv_heads, attention.q.shape[-1], dtype=torch.float64)
        vector.requires_grad_()
        rows = with_key_vector(attention, vector).rows(None)
        assert_close(rows.detach(), attention.rows(None), atol=1e-12, rtol=0)
        # So a training has nothing to go by either.
        rows[:, :, :, slice(*PROMPTS[0].span("gold"))].sum().backward()
        assert vector.grad is not None
        assert float(vector.grad.abs().max()) < 1e-11
        some = with_key_vector(attention, vector.detach(), slice(0, 5)).rows(None)
        assert float((some - attention.rows(None)).abs().max()) > 1e-3


def test_where_logits_are_capped_or_a_sink_is_learned_a_key_vector_counts() -> None:
    for name in ("gemma2", "gpt_oss"):
        attention = exact(seen(opened(name), PROMPTS[0])[1])
        vector = torch.randn(attention.n_kv_heads, attention.q.shape[-1], dtype=torch.float64)
        rows = with_key_vector(attention, vector).rows(None)
        assert float((rows - attention.rows(None)).abs().max()) > 1e-3, name


def test_directions_are_saved_whole(tmp_path: Path) -> None:
    for found, names in trained(opened("llama")):
        path = found.save(tmp_path / "some.safetensors")
        again = type(found).load(path)
        assert again.facts == found.facts
        for name in names:
            assert torch.equal(getattr(again, name), getattr(found, name))
        assert [file.name for file in tmp_path.iterdir()] == ["some.safetensors"]


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    (focus, _), (outputs, _) = trained(opened("llama"))
    path = tmp_path / "some.safetensors"
    for kind, other in ((Directions, outputs), (OutputDirections, focus)):
        with pytest.raises(HeadscopeError, match="holds no"):
            kind.load(other.save(path))
        save_file({"q": np.zeros((3, 8), np.float32)}, path)
        with pytest.raises(HeadscopeError, match="holds no"):
            kind.load(path)
        with pytest.raises(HeadscopeError, match="cannot be read"):
            kind.load(tmp_path / "missing.safetensors")
    for found in (focus, outputs):
        content = found.save(path).read_bytes()
        path.write_bytes(content[:-7])
        with pytest.raises(HeadscopeError, match="damaged"):
            type(found).load(path)
        path.write_bytes(b"not a file of tensors")
        with pytest.raises(HeadscopeError, match="damaged"):
            type(found).load(path)


def test_numbers_that_do_not_fit_the_heads_are_refused(tmp_path: Path) -> None:
    (focus, _), (outputs, _) = trained(opened("llama"))
    for found in (focus, outputs):
        path = found.save(tmp_path / "some.safetensors")
        metadata = {"headscope": found.facts.model_dump_json()}
        arrays = load_file(path)
        save_file({name: array[:-1].copy() for name, array in arrays.items()}, path, metadata)
        with pytest.raises(HeadscopeError, match="damaged"):
            type(found).load(path)
        broken = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
        save_file(broken, path, metadata)
        with pytest.raises(HeadscopeError, match="not finite"):
            type(found).load(path)


def test_another_model_is_refused_by_name() -> None:
    model, other = opened("llama"), opened("qwen3")
    concept = Concept.of(model, ["w5"])
    for method in (focusing(model)[0], itis(model)[0], RescaleConcept([(0, 1)], concept)):
        with pytest.raises(HeadscopeError, match=f"{model.name}.*{other.name}"), method(other):
            pass
