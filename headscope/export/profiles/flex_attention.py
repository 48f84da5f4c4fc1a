from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.export.profiles.blocks import covered
from headscope.export.profiles.tensors import Opened, _Tensors
from headscope.patterns.base import Pattern

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FlexAttention(_Tensors):
    """Block masks of torch's FlexAttention, per query head, for one length.

    Of each different rule `kv_num_blocks` [row block] and `kv_indices` [row block, key block] of
    blocks that are partly seen, `full_kv_num_blocks` and `full_kv_indices` of blocks that are seen
    whole. They are made block by block and never from a mask of tokens × tokens.
    `block_mask(path, layer)` gives the BlockMask of a layer, with the rules as its mask_mod.

    Source: Dong et al. 2024, "FlexAttention", arXiv 2412.05496; torch.nn.attention.flex_attention.
    """

    paper = "Dong et al. 2024, arXiv 2412.05496"
    granularity = "query head"
    loads = (
        "torch 2.11 and newer, flex_attention(..., block_mask=), through "
        "headscope.export.profiles.flex_attention.block_mask"
    )
    loses = (
        "One length only; under grouped heads torch decodes masks that differ by head without "
        "splitting keys, and so slowly."
    )

    entry = 8

    def blocks(self, rule: Pattern, length: int) -> Mapping[str, Tensor]:
        touched, filled = covered(rule, length, self.block)
        count, indices = listed(touched & ~filled)
        full_count, full_indices = listed(filled)
        return {
            "kv_num_blocks": count,
            "kv_indices": indices,
            "full_kv_num_blocks": full_count,
            "full_kv_indices": full_indices,
        }


def block_mask(
    file: str | Path | Opened, layer: int, device: str | torch.device = "cpu"
) -> "BlockMask":
    """The BlockMask of one layer, [1, query head, ...], for flex_attention.

    Args:
        file: what `flex_attention` wrote, or `FlexAttention().open(path)` for several layers.

    Raises:
        HeadscopeError: the file is damaged or another's, or it has no such layer.
    """
    from torch.nn.attention.flex_attention import BlockMask

    opened = file if isinstance(file, Opened) else FlexAttention().open(file)
    numbers = opened.of_layer(layer)

    def tensor(name: str) -> Tensor:
        return opened.stacked(numbers, name)[None].to(device)

    return BlockMask.from_kv_blocks(
        tensor("kv_num_blocks"),
        tensor("kv_indices"),
        tensor("full_kv_num_blocks"),
        tensor("full_kv_indices"),
        BLOCK_SIZE=opened.block,
        mask_mod=mask_mod(opened.rules, torch.from_numpy(numbers).to(device)),
        seq_lengths=(opened.length, opened.length),
    )


def mask_mod(rules: Sequence[Pattern], heads: Int[Tensor, " head"]) -> MaskMod:
    """Whether a pair is seen, for flex_attention.

    Args:
        rules: different ones.
        heads: which of them each query head has.
    """
    used = [(number, rules[number]) for number in heads.unique().tolist()]
    if len(used) == 1:
        alone = used[0][1]
        return lambda batch, head, query, key: alone.mask(query, key) & (key <= query)

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        mine, any_of = heads[head], key < 0
        for number, rule in used:
            any_of = any_of | ((mine == number) & rule.mask(query, key))
        return any_of & (key <= query)

    return seen


def listed(
    chosen: Bool[Tensor, "row_block key_block"],
) -> tuple[Int[Tensor, " row_block"], Int[Tensor, "row_block key_block"]]:
    """How many blocks each row has, and which: those first, in order."""
    order = torch.argsort(chosen.int(), dim=1, descending=True, stable=True)
    return chosen.sum(1).int(), order.int()
