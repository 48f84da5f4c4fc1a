"""Proof, at load time, that headscope sees and moves what the model computes."""

import torch
from torch import Tensor

from headscope.attention import Attention
from headscope.backends.base import Backend
from headscope.backends.discover import without_autocast
from headscope.blocks import reach
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head, label
from headscope.stack import Attend


def self_test(backend: Backend) -> None:
    """One small batch: row i has the heads of the i-th layer changed, the last row none.

    Notes on its way how far back each layer sees.

    Raises:
        HeadscopeError: logits are no numbers, differ from the model's own, or do not move when a
            layer's heads do; the message names the model, and the layer or head if it can.
    """
    n_layers, name = len(backend.sites), type(backend.hf).__name__
    rows = {site.layer: row for row, site in enumerate(backend.sites)}
    vocab = backend.hf.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab, (1, 6), generator=generator).to(backend.hf.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}

    broken: list[Head] = []

    def change(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        z = attended.z.clone()
        far = reach(attention)
        if far is not None:
            backend.reach[attention.layer] = far
        broken.extend((attention.layer, head) for head in _broken(attention))
        z[rows[attention.layer]] = 1 - z[rows[attention.layer]]
        return attended.with_z(z)

    wide = {key: _repeat(value, n_layers + 1) for key, value in inputs.items()}
    # Two ways of computing the same differ by more than rounding where autocast narrows them.
    with torch.no_grad(), without_autocast(backend.hf.device):
        own = backend.defined(inputs)[0, -1].float()
        with backend.entered(change):
            logits = backend.forward(wide)[:, -1].float()
    if not bool(own.isfinite().all()):
        where = f", first in {label(broken[0])}" if broken else ""
        raise HeadscopeError(
            f"{name} computes NaN or infinity by itself{where}; open it in another dtype, or look "
            "at its weights."
        )
    seam, moved = logits[-1], (logits[:-1] - logits[-1]).abs().amax(-1)
    scale = float(own.abs().amax())
    tolerance = 1e-3 if backend.hf.dtype in (torch.float32, torch.float64) else 0.1
    error = float((seam - own).abs().amax())
    if not error <= tolerance * scale:
        raise HeadscopeError(
            f"{name} gives other logits through headscope than by its own eager attention (off by "
            f"{error:.2g} of {scale:.2g}); its attention holds something that the seam does not "
            "carry."
        )
    still = [site.layer for site, move in zip(backend.sites, moved, strict=True) if not move > 0]
    if still:
        raise HeadscopeError(
            f"{name}: changing the heads of layer {still[0]} does not change the logits, so that "
            "nothing measured there would mean anything."
        )


def _broken(attention: Attention) -> list[int]:
    """Heads whose query, key or value is no number somewhere; kernels may hide that in z."""
    bad = (~attention.q[-1].isfinite()).flatten(1).any(1)
    for x in (attention.k, attention.v):
        bad |= (~x[-1].isfinite()).flatten(1).any(1).repeat_interleave(attention.group)
    return bad.nonzero()[:, 0].tolist()


def _repeat(value: Tensor | bool, times: int) -> Tensor | bool:
    return value.repeat(times, 1) if isinstance(value, Tensor) else value
