"""Studies in a scan: what they cost is said, what they kept is not done again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import opened
from torch import Tensor

import headscope
from headscope import storage
from headscope.catalog import probes
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.planning import choose
from headscope.probes.gradients import frozen, need_gradients
from headscope.probes.study import Bill, Work, _Study, check_loss
from headscope.prompts import Prompt, Repeated
from headscope.prompts.base import PromptFamily
from headscope.scanning import Progress

REPEATED = Repeated(samples=3, block=10, times=2)


@dataclass(frozen=True)
class _Lengths(_Study):
    """score = tokens of the prompt, plus the head; cut off at a prompt if told so."""

    paper = "none"
    prompts: PromptFamily = field(default_factory=lambda: REPEATED)

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        return Bill(len(prompts), 2, len(prompts[0]), "a little patience")

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Tensor]:
        def make(index: int) -> dict[str, np.ndarray]:
            MADE.append(index)
            if index in CUT:
                raise KeyboardInterrupt
            heads = np.arange(model.n_heads, dtype=np.float32) + len(prompts[index])
            return {"tokens": np.tile(heads, (model.n_layers, 1))}

        parts = work.each(len(prompts), make)
        rows = torch.from_numpy(np.stack([part["tokens"] for part in parts]))
        return {self.name: rows / (0 if {-1} == CUT else 1)}


MADE: list[int] = []
CUT: set[int] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    MADE.clear()
    CUT.clear()


def test_a_study_says_its_price_and_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    model, said, steps = opened("llama"), [], []
    CUT.add(2)
    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, [_Lengths()], out=tmp_path / "run", announce=said.append)
    assert MADE == [0, 1, 2]
    assert "3 passes forward and 2 backward over 21 tokens each, and a little patience" in said[0]
    CUT.clear()
    MADE.clear()
    head_map = headscope.scan(
        model, [_Lengths(), "induction"], prompts=REPEATED, out=tmp_path / "other",
    )  # fmt: skip
    assert MADE == [0, 1, 2]
    MADE.clear()
    again = headscope.scan(
        model, [_Lengths()], out=tmp_path / "run", progress=lambda *step: steps.append(step)
    )
    assert MADE == [2]
    assert [done for _, done, total in steps] == [0, 1, 2, 3]
    name = _Lengths.name
    np.testing.assert_array_equal(again[name].values, head_map[name].values)
    np.testing.assert_array_equal(headscope.HeadMap.load(tmp_path / "run")[name].mean()[0, 0], 21)
    assert not (tmp_path / "run" / "partial").exists()


def test_a_finished_study_is_not_studied_again(tmp_path: Path) -> None:
    model, folder = opened("llama"), tmp_path / "run"
    chosen = [_Lengths(), "sink"]
    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, chosen, prompts=REPEATED, out=folder, progress=stop_second())
    assert MADE == [0, 1, 2]
    found = next(folder.glob("partial/*-found.safetensors"))
    arrays = storage.read_arrays(found)
    headscope.scan(model, chosen, prompts=REPEATED, out=folder)
    assert MADE == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        headscope.scan(model, chosen, prompts=REPEATED, out=tmp_path / "b", progress=stop_second())
    arrays[_Lengths.name][0, 0, 0] = np.nan
    storage.write_arrays(tmp_path / "b" / "partial" / found.name, arrays)
    with pytest.raises(HeadscopeError, match="is damaged; delete it and scan again"):
        headscope.scan(model, chosen, prompts=REPEATED, out=tmp_path / "b")


def stop_second() -> Progress:
    """Cuts a scan off when the second group of prompts begins."""
    seen: list[str] = []

    def stop(key: str, done: int, total: int) -> None:
        seen.append(key)
        if key != seen[0]:
            raise KeyboardInterrupt

    return stop


def test_a_score_that_is_no_number_leaves_nothing_behind(tmp_path: Path) -> None:
    CUT.add(-1)
    with pytest.raises(HeadscopeError, match="L0H0 has a _lengths that is no number"):
        headscope.scan(opened("llama"), [_Lengths()], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_probes_are_those_that_do_not_train_unless_asked() -> None:
    training = {name for name, kind in probes().items() if kind.training}
    chosen = {probe.name for probe in choose("all", None, None, None, None)}
    assert chosen == probes().keys() - training
    assert {p.name for p in choose("all", None, None, None, None, training=True)} == set(probes())


def test_losses_that_lead_nowhere_are_refused() -> None:
    check_loss("x", [3.0, 2.0, 1.0], "the loss", "use a smaller lr")
    with pytest.raises(HeadscopeError, match="'x' stops at step 2: the loss is nan; use a sm"):
        check_loss("x", [3.0, float("nan")], "the loss", "use a smaller lr")
    with pytest.raises(HeadscopeError, match="the loss does not fall"):
        check_loss("x", [1.0, 1.0], "the loss", "use a smaller lr")
    check_loss("x", [1.0, 1.0], "the loss", "use a smaller lr", fall=False)


def test_weights_stay_still_and_are_given_back() -> None:
    model = opened("llama")
    before = [p.requires_grad for p in model.hf.parameters()]
    with frozen(model):
        assert torch.is_grad_enabled()
        assert not any(p.requires_grad for p in model.hf.parameters())
    assert [p.requires_grad for p in model.hf.parameters()] == before
    assert not torch.is_grad_enabled()


@pytest.mark.parametrize("backend", ["hf", "nnsight", "lens"])
def test_gradients_flow_on_every_backend(backend: str) -> None:
    need_gradients("x", opened("llama", backend))


def test_a_model_without_gradients_is_refused_by_name() -> None:
    """As a quantised linear map does, one of it gives no gradient."""
    hf = opened("llama").hf
    model = headscope.load(type(hf)(hf.config), opened("llama").tokenizer)
    last = model.hf.model.layers[-1].mlp
    handle = last.register_forward_hook(lambda module, args, out: out.detach())
    block = model.hf.model.layers[-1].register_forward_hook(
        lambda module, args, out: out.detach() if torch.is_tensor(out) else out
    )
    with pytest.raises(HeadscopeError, match="'x' differentiates the model"):
        need_gradients("x", model)
    handle.remove()
    block.remove()
    need_gradients("x", model)
