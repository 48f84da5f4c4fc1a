"""The intervention that patches: against hooks, in batches, in parts, and what it refuses."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import opened
from made_pairs import every_head
from tiny import reference_model
from torch import Tensor
from torch.testing import assert_close

from headscope.errors import HeadscopeError
from headscope.interventions.patch import Outputs, Patch
from headscope.model import HeadModel

TOKENS = torch.randint(3, 97, (1, 14), generator=torch.Generator().manual_seed(2))
OTHER = TOKENS.clone()
OTHER[0, 6] = 50
HEADS = ((0, 1), (1, 0), (1, 4), (2, 5))


def outputs(model: HeadModel, ids: Tensor = OTHER) -> Outputs:
    return Outputs.of(model, ids[0].tolist())


def test_no_heads_is_a_bit_exact_no_op_and_the_same_run_changes_nothing(architecture: str) -> None:
    model = opened(architecture)
    with model.entered(lambda a, attend: attend(a)):
        plain = model(TOKENS)
    with Patch((), outputs(model))(model):
        assert torch.equal(model(TOKENS), plain)
    with Patch(every_head(model), outputs(model, TOKENS))(model):
        assert_close(model(TOKENS), plain, atol=1e-5, rtol=0)
    with Patch(HEADS, outputs(model))(model):
        assert (model(TOKENS) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("positions", [None, (6, 9)])
def test_patching_equals_hooks(llama: HeadModel, positions: tuple[int, ...] | None) -> None:
    hf, kept = reference_model("llama"), dict[int, Tensor]()
    for layer, block in enumerate(hf.model.layers):

        def edit(module: Any, args: tuple[Tensor], layer: int = layer):
            if layer not in kept:
                kept[layer] = args[0]
                return None
            z, there = (x.unflatten(-1, (-1, 8)).clone() for x in (args[0], kept[layer]))
            rows = range(14) if positions is None else positions
            for at, head in HEADS:
                if at == layer:
                    z[:, list(rows), head] = there[:, list(rows), head]
            return (z.flatten(-2),)

        block.self_attn.o_proj.register_forward_pre_hook(edit)
    hf(OTHER)
    with Patch(HEADS, outputs(llama), positions)(llama):
        found = llama(TOKENS)
    assert_close(found, hf(TOKENS).logits, atol=1e-4, rtol=1e-4)


def test_rows_of_a_batch_are_patched_as_if_alone(architecture: str) -> None:
    model = opened(architecture)
    stored = outputs(model)
    rows = [Patch(heads, stored) for heads in ((), HEADS[:1], HEADS[1:3], HEADS)]
    with Patch.rowwise(model, rows):
        together = model(TOKENS.expand(4, -1))
    for row, patch in zip(together, rows, strict=True):
        with patch(model):
            assert_close(row, model(TOKENS)[0], atol=1e-4, rtol=1e-4)


def test_one_pass_equals_prefill_and_decode(architecture: str) -> None:
    model = opened(architecture)
    with Patch(HEADS, outputs(model))(model):
        whole, cache = model(TOKENS), model.new_cache()
        parts = [model(TOKENS[:, :9], cache=cache)]
        parts += [model(TOKENS[:, [t]], cache=cache) for t in range(9, 14)]
    assert_close(torch.cat(parts, 1), whole, atol=3e-4, rtol=1e-4)


def test_what_is_generated_behind_a_patched_prompt_is_left_alone(llama: HeadModel) -> None:
    with Patch(HEADS, outputs(llama))(llama):
        tokens = llama.generate(TOKENS, max_new_tokens=5)
        ids = torch.cat((TOKENS, tokens), 1)
        whole = llama(ids[:, :-1], prompt_length=14, last=5)
    assert torch.equal(whole.argmax(-1), tokens)


def test_runs_that_do_not_fit_are_refused(llama: HeadModel) -> None:
    patch = Patch(HEADS, outputs(llama))
    longer = torch.cat((TOKENS, TOKENS), 1)
    with patch(llama):
        for ids in (longer, TOKENS[:, :9]):
            with pytest.raises(HeadscopeError, match=r"a run of 14 tokens, and this one has \d+"):
                llama(ids)
        with pytest.raises(HeadscopeError, match="a run of 14 tokens, and this one has 28"):
            llama.generate(longer, max_new_tokens=2)
    for heads in ([(3, 0)], ["L0H6"]):
        with (
            pytest.raises(HeadscopeError, match="has no head"),
            Patch(heads, outputs(llama))(llama),
        ):
            pass
    whole = outputs(llama)
    cut = Outputs(whole.layers[:2], whole.z[:2])
    with (
        pytest.raises(HeadscopeError, match=r"of 2 layers × 6 heads, and .* has 3 × 6"),
        Patch([(0, 0)], cut)(llama),
    ):
        pass
    with pytest.raises(HeadscopeError, match="no position 14: its positions run from 0 to 13"):
        Patch(HEADS, whole, (3, 14))
    with (
        pytest.raises(HeadscopeError, match="differ in their heads alone"),
        Patch.rowwise(llama, [patch, Patch(HEADS, whole)]),
    ):
        pass


@pytest.mark.parametrize("backend", ["nnsight", "lens"])
def test_the_same_on_every_backend(architecture: str, backend: str) -> None:
    found = []
    for name in ("hf", backend):
        model = opened(architecture, name)
        with Patch(HEADS, outputs(model))(model):
            found.append(model(TOKENS))
    assert_close(found[0], found[1], atol=3e-4, rtol=1e-4)


def test_names_stand_for_heads() -> None:
    """In a process of its own: here the types would be refused first."""
    code = (
        "import torch\n"
        "from headscope.errors import HeadscopeError\n"
        "from headscope.interventions.patch import Outputs, Patch\n"
        "stored = Outputs((0,), torch.zeros(1, 2, 3, 4))\n"
        "print(Patch('L0H1', stored).heads)\n"
        "for wrong in (([3], stored), (['L0H1'], 'x')):\n"
        "    try:\n        Patch(*wrong)\n    except HeadscopeError as error:\n"
        "        print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heads, mistake, lacking = done.stdout.splitlines()
    assert heads == "((0, 1),)"
    assert "names like 'L17H3'" in mistake
    assert "outputs=Outputs.of(model, token_ids)" in lacking
