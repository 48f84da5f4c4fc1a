"""What a caller in Python gets wrong: one sentence that says what to do."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

import headscope
from headscope import heads
from headscope.errors import HeadscopeError
from headscope.evals.evaluate import evaluate
from headscope.evals.validate import validate
from headscope.model import HeadModel
from headscope.probes.sink import Sink
from headscope.scanning import scan

# As they are outside of tests, where nobody checks types.
_scan: Any = inspect.unwrap(scan)
_validate: Any = inspect.unwrap(validate)
_evaluate: Any = inspect.unwrap(evaluate)
_forward: Any = inspect.unwrap(HeadModel.forward)
_generate: Any = inspect.unwrap(HeadModel.generate)
_parse: Any = inspect.unwrap(heads.parse_heads)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: _scan("smollm2", ["sink"]), r"headscope\.load\('smollm2'\)"),
        (lambda m: _scan(m.hf, ["sink"]), "instead of a LlamaForCausalLM"),
        (lambda m: _validate("smollm2", ["L0H1"]), r"headscope\.load\('smollm2'\)"),
        (lambda m: _validate(m, ["L0H1"], kinds=("x",)), "no 'x' controls; choose among uniform"),
        (lambda m: _validate(m, ["L0H1"], mode="x"), "mode is one of zero"),
        (lambda m: _evaluate("smollm2", ["needle"]), r"headscope\.load\('smollm2'\)"),
        (lambda m: _evaluate(m, ["needle"], changes={"x": ["y"]}), "A change is an intervention"),
        (lambda m: _scan(m, [Sink]), r"pass one of it, Sink\(\)"),
        (lambda m: _scan(m, [3]), "3 is no probe"),
        (lambda m: _scan(m, ["sink"], lengths=64), "list of whole numbers, not 64"),
        (lambda m: _scan(m, ["sink"], lengths="64"), "list of whole numbers"),
        (lambda m: _scan(m, ["sink"], samples=1.5), "whole number, not 1.5"),
        (lambda m: _scan(m, ["sink"], prompts=["hello"]), "path of a JSONL file"),
        (lambda m: _parse(None), "names no head"),
        (lambda m: _parse([(0, 1, 2)]), "names no head"),
        (lambda m: _parse([(0.5, 1)]), "names no head"),
        (lambda m: _parse([3, 4]), "names no head"),
        (lambda m: _forward(m, torch.rand(1, 4)), "whole numbers, not float32"),
        (lambda m: _forward(m, [[1, 2], [3]]), "as many in every row"),
        (lambda m: _forward(m, [3, 4], last=-1), "counts tokens from the end"),
        (lambda m: _forward(m, [3, 4], attention_mask=torch.ones(1, 5)), r"shape is \[1, 2\]"),
        (lambda m: _forward(m, [3, 4], attention_mask="11"), r"shape is \[1, 2\]"),
        (lambda m: _generate(m, [3, 4], max_new_tokens=0), "at least one new token"),
        (
            lambda m: _generate(m, [3, 4], attention_mask=torch.ones(2, 2, dtype=torch.long)),
            r"shape is \[1, 2\]",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    llama: HeadModel, call: Callable[[HeadModel], Any], message: str
) -> None:
    with pytest.raises(HeadscopeError, match=message) as caught:
        call(llama)
    assert "\n" not in str(caught.value)


def test_masks_may_be_lists_and_cover_the_cache(llama: HeadModel) -> None:
    ids, mask = [0, 5, 6, 7], [[0, 1, 1, 1]]
    want = _forward(llama, ids, attention_mask=torch.tensor(mask))
    assert torch.equal(_forward(llama, ids, attention_mask=mask), want)
    cache = llama.new_cache()
    llama.forward(ids[:2], attention_mask=torch.tensor(mask)[:, :2], cache=cache)
    tail = llama.forward(ids[2:], attention_mask=torch.tensor(mask), cache=cache)
    torch.testing.assert_close(tail, want[:, 2:])


def test_no_rows_have_an_answer(llama: HeadModel) -> None:
    shapes: list[tuple[int, ...]] = []
    with llama.observed(lambda a: shapes.append(tuple(a.attention.rows([]).shape))):
        llama([5, 6, 7])
    assert shapes == [(1, 6, 0, 3)] * 3


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_autocast_stands_around_a_pass(backend: Any, architecture: str) -> None:
    pytest.importorskip({"lens": "transformer_lens", "hf": "torch"}.get(backend, backend))
    ids = torch.arange(3, 40)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = tiny_model(architecture)(ids).logits
        model = headscope.load(tiny_model(architecture), tiny_tokenizer(), backend=backend)
        found = model(ids)
        with headscope.Ablate(["L0H1"])(model):
            ablated = model(ids)
        assert model.generate(ids, max_new_tokens=2).shape[1] <= 2
    assert found.dtype == own.dtype == torch.bfloat16
    rounding = (own.float() - tiny_model(architecture)(ids).logits).abs().max()
    assert (found.float() - own.float()).abs().max() <= 2 * rounding
    assert not torch.equal(ablated, found)
