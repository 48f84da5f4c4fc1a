"""Gradients of answers by head: planted heads, the definition by hand, and what is refused.

Worked out from the kinds before anything was measured. What a head that writes to the output says
about the answer, in logits, goes into the gradient as it is: heads that copy it (induction), and
those that take it away (suppressing_induction), stand on its path, with the head that fetches what
they look for (previous_token). Not said of: `copying_previous_token`, which raises a word that
competes with the answer, by as much as the rest leaves it; `scrambling`, which writes much of no
word; and heads that fill the stream (two_back, counting, aging), which a norm holds to one length,
so that all of the answer's logits are a little smaller for them. Others read the needle and say
nothing (reading_induction, late_induction, weak_induction, topic, duplicate_token, echo), or sit
elsewhere: low.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from organism_prompts import HAYSTACK
from organisms import Organism, rope_organism, whole_organism
from sklearn.metrics import roc_auc_score
from tiny import reference_model, tiny_model, tiny_tokenizer
from torch import Tensor

import headscope
from headscope.errors import HeadscopeError
from headscope.interventions.ablate import Ablate
from headscope.probes.importance import Importance, importance
from headscope.probes.study import Work
from headscope.prompts import Prompt, Repeated
from headscope.prompts.base import PromptFamily

HIGH = {"induction", "recent_induction", "suppressing_induction", "previous_token"}
EITHER = {"copying_previous_token", "scrambling", "two_back", "counting", "aging"}


def area(organism: Organism, scores: np.ndarray) -> float:
    told = {place: kind for place, kind in organism.kinds.items() if kind not in EITHER}
    return float(roc_auc_score([kind in HIGH for kind in told.values()],
                               [scores[place] for place in told]))  # fmt: skip


@pytest.mark.parametrize("build", [rope_organism, whole_organism])
@pytest.mark.parametrize("seed", range(20))
def test_planted_heads_on_the_path_of_the_answer_are_found(seed: int, build: Any) -> None:
    """A small model, and one with heads of every kind, near misses among them; both with noise."""
    organism = build(seed)
    model = headscope.load(organism.hf, organism.tokenizer)
    prompts = dataclasses.replace(HAYSTACK, samples=6, seed=seed).prompts(model.tokenizer)
    found = Importance().study(model, prompts, Work())["importance"].mean(0)
    assert area(organism, found.numpy()) >= 0.95


class Answered(PromptFamily):
    """Random tokens and an answer of several."""

    def prompt(self, index: int, tokenizer: Any) -> Prompt:
        rng = self.rng(index)
        ids = [rng.randrange(3, 97) for _ in range(22 + index)]
        return Prompt(tuple(ids[:-3]), answer="x", answer_ids=tuple(ids[-3:]))


PromptFamily.registry.pop("answered")
PROMPTS = Answered(samples=3).prompts(tiny_tokenizer())


def by_hand(architecture: str, prompt: Prompt) -> Tensor:
    """What goes into each output projection, times its gradient, on the model's own attention."""
    model: Any = reference_model(architecture).double()
    ids = [*prompt.token_ids, *prompt.answer_ids]
    seen: list[Tensor] = []
    blocks = (
        [b.attn.c_proj for b in model.transformer.h] if architecture == "gpt2"
        else [b.self_attn.o_proj for b in model.model.layers]
    )  # fmt: skip
    for block in blocks:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.enable_grad():
        said = model(torch.tensor([ids[:-1]])).logits[0, len(prompt) - 1 :].softmax(-1).log()
        loss = -torch.stack([said[i, token] for i, token in enumerate(prompt.answer_ids)]).sum()
        slopes = torch.autograd.grad(loss, seen)
    parts = [(z * slope)[0].unflatten(-1, (6, -1)) for z, slope in zip(seen, slopes, strict=True)]
    return torch.stack([part.sum((0, 2)).abs() for part in parts])


@pytest.mark.parametrize("architecture", ["llama", "llama_mha", "qwen2", "gemma2", "gpt2"])
def test_scores_are_gradients_of_gates_by_hand(architecture: str) -> None:
    found = headscope.scan(opened(architecture), [Importance(prompts=Answered(samples=3))])
    want = torch.stack([by_hand(architecture, prompt) for prompt in PROMPTS]).numpy()
    np.testing.assert_allclose(found["importance"].values, want, atol=1e-4, rtol=1e-4)
    mean = want.mean(0)
    norms = np.sqrt((mean**2).sum(-1, keepdims=True))
    np.testing.assert_allclose(found["importance_in_layer"].mean(), mean / norms, atol=1e-4)


def test_a_score_is_what_a_gate_changes(llama: headscope.HeadModel) -> None:
    """A difference of two losses, with the head's output a little larger and a little smaller."""
    prompt, step = PROMPTS[0], 1e-3
    ids, want = [*prompt.token_ids, *prompt.answer_ids[:-1]], torch.tensor(prompt.answer_ids)

    def loss(layer: int, head: int, gate: float) -> float:
        def around(attention: Any, attend: Any) -> Any:
            attended = attend(attention)
            gates = torch.ones(6)
            gates[head] = gate if attention.layer == layer else 1
            return attended.with_z(attended.z * gates[:, None, None])

        with llama.entered(around):
            said = llama.forward(ids)[0, -3:].double().log_softmax(-1)
        return -float(said.gather(1, want[:, None]).sum())

    found = importance(llama, prompt)
    for layer, head in ((0, 0), (1, 4), (2, 3)):
        slope = (loss(layer, head, 1 + step) - loss(layer, head, 1 - step)) / (2 * step)
        assert abs(slope) == pytest.approx(float(found[layer, head]), rel=0.02, abs=5e-3)


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_backends_agree(architecture: str, backend: str) -> None:
    for prompt in PROMPTS[:2]:
        found = [importance(opened(architecture, name), prompt) for name in ("hf", backend)]
        torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_signs_of_prompts_do_not_cancel_and_their_order_does_not_matter() -> None:
    """Each prompt has gradients of its own; a port that lets them add up fails this."""
    model = headscope.load(tiny_model("llama"), tiny_tokenizer())
    alone = torch.stack([importance(model, prompt) for prompt in PROMPTS])
    again = torch.stack([importance(model, prompt) for prompt in reversed(PROMPTS)])
    torch.testing.assert_close(alone, again.flip(0))
    assert all(p.grad is None for p in model.hf.parameters())
    assert not torch.is_grad_enabled()


def test_heads_that_are_taken_out_have_none(llama: headscope.HeadModel) -> None:
    with Ablate(["L1H2", "L0H0"])(llama):
        found = importance(llama, PROMPTS[0])
    assert found[1, 2] == found[0, 0] == 0
    assert (found > 0).sum() == found.numel() - 2
    with Ablate([(0, head) for head in range(6)])(llama):
        found = importance(llama, PROMPTS[0])
    assert not found[0].any()
    assert found[1:].all()


def test_a_study_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    probe, model = Importance(prompts=Answered(samples=3)), opened("llama")

    def stop(key: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, [probe], out=tmp_path / "run", progress=stop)
    assert len(list(tmp_path.glob("run/partial/*.safetensors"))) == 2
    found = headscope.scan(model, [probe], out=tmp_path / "run")
    whole = headscope.scan(model, [probe])
    for name in probe.outputs():
        np.testing.assert_array_equal(found[name].values, whole[name].values)


def test_it_says_what_it_costs(tmp_path: Path) -> None:
    said: list[str] = []
    headscope.scan(opened("llama"), [Importance(prompts=Answered(samples=3))],
                   out=tmp_path / "run", announce=said.append)  # fmt: skip
    assert "3 passes forward and 3 backward over 22 tokens each, and the activations" in said[0]


def test_prompts_without_an_answer_are_refused() -> None:
    family = Repeated(samples=2, block=5, times=2)
    with pytest.raises(HeadscopeError, match="Prompt 1 of repeated: the probe 'importance' differ"):
        headscope.scan(opened("llama"), [Importance(prompts=family)])


def test_a_model_without_gradients_is_refused() -> None:
    hf = opened("llama").hf
    model = headscope.load(type(hf)(hf.config), opened("llama").tokenizer)
    model.hf.lm_head.register_forward_hook(lambda module, args, out: out.detach())
    with pytest.raises(HeadscopeError, match="'importance' differentiates the model"):
        headscope.scan(model, [Importance(prompts=Answered(samples=2))])
