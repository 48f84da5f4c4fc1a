"""Reading with a `HeadCache`, and the dense float64 pass that its logits are held to."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from headscope.model import HeadModel
from headscope.sparsity import SparseProfile

TOKENS = torch.randint(3, 97, (3, 60), generator=torch.Generator().manual_seed(31))
WHOLE = torch.ones_like(TOKENS)
PADDED = WHOLE.clone()
PADDED[0, :9], PADDED[2, :31] = 0, 0


def read(
    model: HeadModel,
    tokens: Tensor,
    cache: Any,
    sizes: Sequence[int],
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Logits of a text that is read in pieces; what the sizes leave over is read in one."""
    edges = [0]
    for size in (*sizes, tokens.shape[1]):
        edges.append(min(edges[-1] + size, tokens.shape[1]))
    said = [
        model(
            tokens[:, start:stop],
            attention_mask=None if mask is None else mask[:, :stop],
            cache=cache,
            **options,
        )
        for start, stop in itertools.pairwise(edges)
        if start < stop
    ]
    return torch.cat(said, 1)


def masked(model: HeadModel, profile: SparseProfile, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits of the model's own eager attention, keys hidden by masks of n × n.

    In float64, but for the softmax, and for experts, whose kernel has none.
    """
    hf = copy.deepcopy(model.hf)
    if hf.config.model_type != "gpt_oss":
        hf = hf.double()
    hf.set_attn_implementation("eager")
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    query, key = positions[:, None, :, None], positions[:, None, None, :]

    def hide(layer: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        seen = torch.stack([rule.mask(query, key)[:, 0] for rule in profile.of_layer(layer)], dim=1)
        seen = seen & (kwargs["attention_mask"] == 0)
        # Padding sees nothing at all, which -inf would turn into NaN.
        hidden = torch.zeros_like(seen, dtype=hf.dtype).masked_fill(~seen, -1e9)
        return kwargs | {"attention_mask": hidden}

    modules = [m for m in hf.modules() if type(m) in {type(f.module) for f in model.backend.layers}]
    for found, module in zip(model.backend.layers, modules, strict=True):
        module.register_forward_pre_hook(
            lambda _, args, kwargs, layer=found.layer: (args, hide(layer, kwargs)), with_kwargs=True
        )
    return hf(input_ids=tokens, attention_mask=mask, position_ids=positions).logits


def held_positions(cache: Cache, layer: int, kv_head: int) -> list[dict[int, Tensor]]:
    """The keys that a KV head with a ring holds, by their positions, row by row."""
    (store,) = [store for store in cache.layers[layer].stores if kv_head in store.kv_heads]
    keys = store.keys[:, store.kv_heads.index(kv_head)]
    return [
        {p: key for p, key in zip(row, held, strict=True) if p >= 0}
        for row, held in zip(store.positions.tolist(), keys, strict=True)
    ]
