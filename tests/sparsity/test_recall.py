"""Recalls beside the definition: dense, in float64, one pair after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from oracle import dense
from tiny import tiny_model, tiny_tokenizer

import headscope
from headscope import storage
from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.patterns import Full, Pattern, Streaming
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.prompts.base import Prompt
from headscope.sparsity import Recalls, measure_recall
from headscope.sparsity.recall import own_lengths

SELECTOR = VerticalSlash(vertical=3, slash=4, last_q=4, sink=1, window=2, block=3)
RULES: tuple[Rule, ...] = (Streaming(2, 3), Streaming(0, 1), SELECTOR, Full())


def prompt(seed: int, tokens: int = 13, answer: int = 3) -> Prompt:
    drawn = torch.randint(3, 97, (tokens + answer,), generator=torch.Generator().manual_seed(seed))
    ids = tuple(drawn.tolist())
    return Prompt(ids[:tokens], answer="w", answer_ids=ids[tokens:])


PROMPTS = [prompt(seed) for seed in range(3)]


def attentions(model: HeadModel, one: Prompt) -> list[Attention]:
    seen: list[Attention] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model.forward([*one.token_ids, *one.answer_ids[:-1]], prompt_length=len(one))
    return seen


def mask_of(rule: Rule, a: Attention) -> torch.Tensor:
    """[head, query, key], from what the rule says of positions or chose."""
    n = a.n_keys
    query, key = torch.arange(n)[:, None], torch.arange(n)[None]
    if isinstance(rule, Pattern):
        return rule.mask(query, key).expand(a.n_heads, n, n)
    chosen = rule.resolve(a).mask(a, query, key)
    return chosen[0].expand(a.n_heads, n, n)


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "gemma2"])
@pytest.mark.parametrize("rows", ["answer", "all"])
def test_recall_and_output_are_those_of_the_definition(name: str, rows: Any) -> None:
    model = opened(name)
    found = measure_recall(model, RULES, PROMPTS[:2], rows=rows)
    assert found.about.losses[0] == "recall"
    for at, one in enumerate(PROMPTS[:2]):
        n = len(one) + len(one.answer_ids) - 1
        taken = list(range(len(one) - 1, n)) if rows == "answer" else list(range(n))
        for layer, a in enumerate(attentions(model, one)):
            true = dense(a)
            causal = torch.ones(n, n).tril().bool()
            for place, rule in enumerate(RULES):
                seen = mask_of(rule, a)
                sink = 1 - true.pattern.sum(-1) if a.sink_logits is not None else 0.0
                kept = (true.pattern * seen).sum(-1) + sink
                expected = kept[0][:, taken].mean(1)
                got = found.recall[at, layer, :, place]
                np.testing.assert_allclose(got, expected, atol=2e-5)
                z = (
                    true.pattern * seen / kept[..., None].clamp(min=1e-300)
                ) @ a.v.double().repeat_interleave(a.group, 1)
                change = (z - true.z)[0][:, taken]
                if "output" in found.losses and name == "llama":
                    W = model.weights(a.layer).W_O.double()
                    wrote = torch.einsum("hqd,hdm->qm", true.z[0][:, taken], W)
                    lost = torch.einsum("hqd,hdm->hqm", change, W).square().sum(-1)
                    expected = (lost / wrote.square().sum(-1)).mean(1)
                    got = found.losses["output"][at, layer, :, place]
                    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
                visible = dense(a).pattern[0] > 0 if name != "llama" else causal.expand_as(seen)
                if not isinstance(rule, Pattern):
                    share = (seen & visible).sum((-1, -2)) / visible.sum((-1, -2))
                    np.testing.assert_allclose(found.density[at, layer, :, place], share, atol=1e-6)
                else:
                    np.testing.assert_allclose(
                        found.density[at, layer, :, place], rule.density(n), atol=1e-6
                    )


def test_the_loss_of_the_answer_is_that_of_finite_differences() -> None:
    model = headscope.load(tiny_model("llama").double(), tiny_tokenizer())
    rules, one = (Streaming(1, 2),), prompt(7, tokens=8, answer=2)
    found = measure_recall(model, rules, [one]).losses["answer"][0]
    tokens = [*one.token_ids, *one.answer_ids[:-1]]
    n = len(tokens)

    def said(layer: int, edit: Callable[[torch.Tensor], torch.Tensor]) -> float:
        def around(attention: Attention, attend: Any) -> Any:
            attended = attend(attention)
            return attended.with_z(edit(attended.z)) if attention.layer == layer else attended

        with model.entered(around):
            logits = model.forward(tokens, prompt_length=len(one))[0, len(one) - 1 :]
        return float(logits.log_softmax(-1)[range(2), list(one.answer_ids)].sum())

    step = 3e-3  # norms inside the model are float32
    for layer, a in enumerate(attentions(model, one)):
        true = dense(a)
        seen = mask_of(rules[0], a)
        kept = true.pattern * seen
        change = kept / kept.sum(-1, keepdim=True) @ a.v.repeat_interleave(a.group, 1) - true.z
        for head in (0, 4):
            total = 0.0
            for row in range(n):
                moved = torch.zeros_like(change)
                moved[0, head, row] = change[0, head, row] * step
                ends = [said(layer, lambda z, s=sign, m=moved: z + s * m) for sign in (1, -1)]
                total += ((ends[0] - ends[1]) / (2 * step)) ** 2
            assert found[layer, head, 0] == pytest.approx(total, rel=1e-3, abs=1e-9)


def test_a_full_rule_loses_nothing(architecture: str) -> None:
    model = opened(architecture)
    found = measure_recall(model, (Full(), Streaming(0, 1000)), PROMPTS[:1])
    for name in found.losses:
        assert np.abs(found.loss(name)).max() <= (0 if name != "answer" else 1e-20)


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = opened("llama"), tmp_path / "recalls.safetensors"
    whole = measure_recall(model, RULES, PROMPTS)
    passes = []
    forward = type(model).forward

    def counted(self: Any, token_ids: Any, **options: Any) -> Any:
        if options.get("prompt_length") is not None:
            passes.append(1)
        return forward(self, token_ids, **options)

    monkeypatch.setattr(type(model), "forward", counted)

    def stop(_: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_recall(model, RULES, PROMPTS, out=path, progress=stop)
    assert len(passes) == 2
    half = Recalls.load(path)
    assert (half.done, half.complete) == (2, False)
    with pytest.raises(HeadscopeError, match="2 of 3 prompts are measured"):
        half.loss()
    found = measure_recall(model, RULES, PROMPTS, out=path)
    assert len(passes) == 3
    again = measure_recall(model, RULES, PROMPTS, out=path)
    assert len(passes) == 3
    for name in whole.losses:
        np.testing.assert_allclose(found.losses[name], whole.losses[name], rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(again.loss(name), Recalls.load(path).loss(name))
    with pytest.raises(HeadscopeError, match="holds another measurement"):
        measure_recall(model, RULES[:2], PROMPTS, out=path)
    with pytest.raises(HeadscopeError, match="holds another measurement"):
        measure_recall(opened("llama_mha"), RULES, PROMPTS, out=path)


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    measure_recall(opened("llama"), RULES, PROMPTS[:1], out=path)
    arrays, header = storage.read_described(path)
    storage.write_arrays(path, {**arrays, "recall": arrays["recall"][:, :1]}, header)
    with pytest.raises(HeadscopeError, match="measure again"):
        Recalls.load(path)
    storage.write_arrays(path, {**arrays, "recall": arrays["recall"] * np.nan}, header)
    with pytest.raises(HeadscopeError, match="measure again"):
        Recalls.load(path)
    newer = {"headscope": header["headscope"].replace('"schema_version":1', '"schema_version":9')}
    storage.write_arrays(path, arrays, newer)
    with pytest.raises(HeadscopeError, match="newer headscope"):
        Recalls.load(path)
    storage.write_arrays(path, arrays)
    with pytest.raises(HeadscopeError, match="holds no recalls"):
        Recalls.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(HeadscopeError, match="damaged"):
        Recalls.load(path)


def test_one_token_is_a_text(llama: HeadModel) -> None:
    one = Prompt((5,), answer="w", answer_ids=(6,))
    found = measure_recall(llama, (Streaming(0, 1), Full()), [one])
    assert found.lengths == (1,)
    assert found.recall.min() == 1
    bare = measure_recall(llama, (Streaming(0, 1),), [Prompt((5,))], rows="all")
    assert bare.about.losses == ("recall", "output")


def test_prompts_of_about_one_length_are_of_one(llama: HeadModel) -> None:
    prompts = [prompt(i, tokens) for i, tokens in enumerate((20, 30, 21, 22, 31))]
    found = measure_recall(llama, (Full(),), prompts)
    assert found.about.lengths == (22, 31, 22, 22, 31)
    assert found.lengths == (22, 31)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompts": []}, "one prompt at least"),
        ({"rules": []}, "give one at least"),
        ({"prompts": [Prompt((3, 4))]}, "expects no answer"),
        ({"prompts": [Prompt((3, 4))], "rows": "all", "answer": True}, "expects no answer"),
        ({"prompts": [prompt(0, 200)]}, "do not fit"),
        ({"lengths": [30]}, "Prompts of your own"),
    ],
)
def test_mistakes(llama: HeadModel, options: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"rules": RULES, "prompts": PROMPTS} | options
    with pytest.raises(HeadscopeError, match=said):
        measure_recall(llama, **given)


def test_lengths_that_no_context_holds() -> None:
    from headscope.prompts.needle import Needle
    from headscope.prompts.text import Text

    assert own_lengths(Needle(), 600) == (256, 512)
    assert own_lengths(Needle(), None) == Needle().lengths
    with pytest.raises(HeadscopeError, match="give lengths"):
        own_lengths(Needle(), 100)
    assert own_lengths(Text(lengths=(50, 99, 100)), 100) == (50, 99)


def test_heads_that_no_gradient_reaches(monkeypatch: pytest.MonkeyPatch, llama: HeadModel) -> None:
    def none(*_: Any) -> None:
        raise HeadscopeError("no")

    monkeypatch.setattr("headscope.sparsity.recall.need_gradients", none)
    found = measure_recall(llama, RULES, PROMPTS[:1])
    assert found.about.losses == ("recall", "output")
    assert found.best_loss == "output"
    with pytest.raises(HeadscopeError, match="was not measured"):
        found.loss("answer")
    with pytest.raises(HeadscopeError, match="answer=False"):
        measure_recall(llama, RULES, PROMPTS[:1], answer=True)
