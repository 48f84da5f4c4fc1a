"""Every registered intervention against its declaration and against itself written out by hand."""

import dataclasses
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import combinations
from types import ModuleType
from typing import Any

import oracle
import pytest
import torch
from conftest import opened
from torch import Tensor
from torch.testing import assert_close

from headscope.attention import Attention
from headscope.catalog import interventions
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.base import Intervention
from headscope.model import HeadModel
from headscope.stack import Attend

NAMES = sorted(interventions())
PROMPT, LENGTH = 18, 24
TOKENS = torch.randint(3, 97, (2, LENGTH), generator=torch.Generator().manual_seed(11))
PADDED = torch.ones_like(TOKENS)
PADDED[0, :5] = 0
MODELS = ("llama", "qwen3")


def written(name: str) -> ModuleType:
    return import_module(f"altered.{name}")


def scoped() -> list[str]:
    """Methods that open a scope on a model and are written out by hand."""
    return [name for name in NAMES if not hasattr(written(name), "own")]


def by_hand(name: str, method: Intervention) -> Callable[[Attention, Attend], Attended]:
    module = written(name)
    if hasattr(module, "by_hand"):
        return module.by_hand(method)

    def edited(attention: Attention, _: Attend) -> Attended:
        pattern = module.edit(method, attention, oracle.dense(attention).pattern)
        v = attention.v.double().repeat_interleave(attention.group, 1)
        return Attended((pattern @ v).to(attention.v.dtype), attention)

    return edited


def steps(model: HeadModel, tokens: Tensor = TOKENS, mask: Tensor | None = None) -> Tensor:
    """Logits of a prefill and of one step for each token after it."""
    cache, seen = model.new_cache(), PROMPT
    mask = torch.ones_like(tokens) if mask is None else mask
    length = mask[:, :PROMPT].sum(1)
    options: dict[str, Any] = {"cache": cache, "prompt_length": length}
    parts = [model(tokens[:, :PROMPT], attention_mask=mask[:, :PROMPT], **options)]
    for seen in range(PROMPT, tokens.shape[1]):
        parts.append(model(tokens[:, [seen]], attention_mask=mask[:, : seen + 1], **options))
    return torch.cat(parts, 1)


def recipes(name: str, model: HeadModel) -> Iterator[Intervention]:
    yield from written(name).methods(model)


def test_every_intervention_is_written_out_by_hand() -> None:
    for name in NAMES:
        module = written(name)
        assert hasattr(module, "own") or hasattr(module, "by_hand") or hasattr(module, "edit"), name


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    kind = interventions()[name]
    assert kind.paper
    assert kind.__doc__
    assert "Source" in kind.__doc__


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", scoped())
def test_it_equals_itself_by_hand_step_by_step(name: str, architecture: str) -> None:
    model = opened(architecture)
    plain = steps(model)
    for method in recipes(name, model):
        with method(model):
            found = steps(model)
        with model.entered(by_hand(name, method)):
            want = steps(model)
        assert_close(found, want, atol=2e-4, rtol=1e-4)
        assert (found - plain).abs().max() > 1e-4, f"{method} changes nothing"


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", scoped())
def test_causal_methods_read_in_steps_what_they_read_at_once(name: str, architecture: str) -> None:
    model = opened(architecture)
    for method in recipes(name, model):
        with method(model):
            whole = model(TOKENS, prompt_length=PROMPT)
            found = steps(model)
        if method.causal:
            assert_close(found, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", scoped())
def test_a_padded_row_is_read_as_alone(name: str) -> None:
    model = opened("llama")
    for method in recipes(name, model):
        with method(model):
            both = steps(model, TOKENS, PADDED)
            alone = _alone(model, method)
        assert_close(both[[0], 5:], alone, atol=2e-4, rtol=1e-4)


def _alone(model: HeadModel, method: Intervention) -> Tensor:
    cache, tokens = model.new_cache(), TOKENS[[0], 5:]
    options: dict[str, Any] = {"cache": cache, "prompt_length": PROMPT - 5}
    parts = [model(tokens[:, : PROMPT - 5], **options)]
    parts += [model(tokens[:, [t]], **options) for t in range(PROMPT - 5, tokens.shape[1])]
    return torch.cat(parts, 1)


def headed() -> list[str]:
    """Methods that act on heads of one's choice."""

    def chosen(name: str) -> bool:
        fields = dataclasses.fields(interventions()[name])
        return "heads" in {field.name for field in fields} or hasattr(written(name), "NO_HEADS")

    return [name for name in scoped() if chosen(name)]


@pytest.mark.parametrize("name", headed())
def test_no_heads_is_a_bit_exact_no_op(name: str) -> None:
    model = opened("llama")
    with model.entered(lambda attention, attend: attend(attention)):
        plain = steps(model)
    for method in recipes(name, model):
        with dataclasses.replace(method, **written_off(method))(model):
            assert torch.equal(steps(model), plain)


def written_off(method: Intervention) -> dict[str, Any]:
    """What leaves a method with no head to act on."""
    module = written(method.name)
    return getattr(module, "NO_HEADS", {"heads": ()})


@pytest.mark.parametrize("name", scoped())
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = opened("llama")
    plain, before = model(TOKENS), {k: v.clone() for k, v in model.hf.state_dict().items()}
    for method in recipes(name, model):
        with method(model):
            steps(model)
        with pytest.raises(RuntimeError, match="in between"), method(model), model.entered(_fails):
            steps(model)
        assert torch.equal(model(TOKENS), plain)
        assert not model.stack.chain.entered
    for key, value in model.hf.state_dict().items():
        assert torch.equal(value, before[key]), key


def _fails(attention: Attention, attend: Attend) -> Attended:
    if attention.layer == 1:
        raise RuntimeError("in between")
    return attend(attention)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
@pytest.mark.parametrize("name", scoped())
def test_backends_agree(name: str, backend: str) -> None:
    model, other = opened("llama"), opened("llama", backend)
    for method in recipes(name, model):
        with method(model):
            want = steps(model)
        with method(other):
            found = steps(other)
        assert_close(found, want, atol=2e-4, rtol=1e-4)


def pairs() -> list[tuple[str, str]]:
    edits = [name for name in scoped() if hasattr(written(name), "edit")]
    return list(combinations(edits, 2))


@pytest.mark.parametrize(("first", "second"), pairs())
def test_pattern_edits_compose_in_both_orders(first: str, second: str) -> None:
    model = opened("llama")
    for outer, inner in ((first, second), (second, first)):
        one, two = (next(recipes(name, model)) for name in (outer, inner))

        def both(attention: Attention, _: Attend, one=one, two=two) -> Attended:
            pattern = oracle.dense(attention).pattern
            for method in (one, two):
                pattern = written(method.name).edit(method, attention, pattern)
            v = attention.v.double().repeat_interleave(attention.group, 1)
            return Attended((pattern @ v).to(attention.v.dtype), attention)

        with one(model), two(model):
            found = model(TOKENS, prompt_length=PROMPT)
        with model.entered(both):
            want = model(TOKENS, prompt_length=PROMPT)
        assert_close(found, want, atol=2e-4, rtol=1e-4)


def exclusive() -> list[tuple[str, str]]:
    kinds = interventions()
    return [(a, b) for a, b in combinations(scoped(), 2) if kinds[a].claims & kinds[b].claims]


@pytest.mark.parametrize(("first", "second"), exclusive())
def test_methods_that_decide_the_same_are_refused_by_name(first: str, second: str) -> None:
    model = opened("llama")
    one, two = (next(recipes(name, model)) for name in (first, second))
    with one(model):
        names = f"{type(two).__name__} and {type(one).__name__}"
        with pytest.raises(HeadscopeError, match=names), two(model):
            pass
        steps(model)
