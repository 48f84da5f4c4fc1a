"""Path patching, a padded batch, and a window so wide that n × n would not fit."""

import subprocess
import sys

import pytest
import torch
from conftest import opened
from pressed.methods import path_effect
from tiny import tiny_model
from torch import Tensor
from torch.testing import assert_close

from headscope.heads import Head
from headscope.model import HeadModel

CLEAN = torch.randint(3, 97, (1, 15), generator=torch.Generator().manual_seed(6))
CORRUPT = CLEAN.clone()
CORRUPT[0, 4] = 50


def hooked_path(clean: Tensor, corrupt: Tensor, sender: Head, receiver: Head) -> Tensor:
    """The same with nothing but torch hooks on projections."""
    hf, d = tiny_model("llama"), 8
    blocks = [layer.self_attn for layer in hf.model.layers]

    def run(ids: Tensor, z: dict[int, Tensor], q: Tensor | None = None):
        kept_z, kept_q, handles = {}, {}, []
        for i, block in enumerate(blocks):

            def put_z(_, args, i=i):
                kept_z[i] = args[0]
                return (z[i],) if i in z else None

            def put_q(_, args, out, i=i):
                kept_q[i] = out
                if q is not None and i == receiver[0]:
                    out = out.clone()
                    at = slice(receiver[1] * d, receiver[1] * d + d)
                    out[..., at] = q[..., at]
                    return out
                return None

            handles.append(block.o_proj.register_forward_pre_hook(put_z))
            handles.append(block.q_proj.register_forward_hook(put_q))
        logits = hf(ids).logits
        for handle in handles:
            handle.remove()
        return logits, kept_z, kept_q

    _, clean_z, _ = run(clean, {})
    _, corrupt_z, _ = run(corrupt, {})
    at = slice(sender[1] * d, sender[1] * d + d)
    clean_z[sender[0]] = clean_z[sender[0]].clone()
    clean_z[sender[0]][..., at] = corrupt_z[sender[0]][..., at]
    _, _, q = run(clean, clean_z)
    return run(clean, {}, q[receiver[0]])[0]


@pytest.mark.parametrize(("sender", "receiver"), [((0, 1), (2, 4)), ((1, 5), (2, 0))])
def test_path_patching_equals_hooks_on_projections(sender: Head, receiver: Head) -> None:
    model = opened("llama")
    found = path_effect(model, CLEAN, CORRUPT, sender, receiver)
    assert_close(found, hooked_path(CLEAN, CORRUPT, sender, receiver), atol=1e-4, rtol=1e-4)
    assert (found - model(CLEAN)).abs().max() > 1e-4


def test_path_patching_without_a_change_does_exactly_nothing(llama: HeadModel) -> None:
    found = path_effect(llama, CLEAN, CLEAN, (0, 1), (2, 4))
    assert torch.equal(found, llama(CLEAN))


WIDE_WINDOW = """
import resource
import torch
from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.engines import dense

resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))  # a mask alone would take 16 GiB
n = 131072
x = torch.randn(3, 1, 1, n, 16, generator=torch.Generator().manual_seed(0))
positions = torch.arange(n)[None]
slots = Slots(0, 0, False)
a = Attention(0, *x, 0.25, positions, positions, window=1024, slots=slots)
with torch.no_grad():
    z = dense(a).z
    rows = torch.tensor([0, 1023, 1024, 99999, n - 1])
    for i in rows.tolist():
        keys = slice(max(0, i - 1023), i + 1)
        weights = (x[0, 0, 0, i].double() @ x[1, 0, 0, keys].double().T * 0.25).softmax(-1)
        assert (weights @ x[2, 0, 0, keys].double() - z[0, 0, i]).abs().max() < 1e-5, i
print("ok")
"""


def test_a_128k_window_needs_no_square_of_tokens() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WIDE_WINDOW], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "ok", done.stderr[-2000:]
