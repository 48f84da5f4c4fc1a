"""Block masks of FlexAttention, made from the tiles of rules and never from pairs of tokens."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headscope.bench.squares import squares
from headscope.export.profiles.flex_attention import listed, mask_mod
from headscope.patterns.base import Pattern

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SIDE = 128  # tokens of a block, which is FlexAttention's own choice


def block_mask(
    patterns: Sequence[Pattern], n: int, device: torch.device
) -> "tuple[BlockMask, float]":
    """A mask for heads with patterns, and the seconds that it took beyond finding their tiles.

    Args:
        patterns: of each head; a single one is shared by all heads.
    """
    from torch.nn.attention.flex_attention import BlockMask

    different = list(dict.fromkeys(patterns))
    found = [squares(pattern, n, SIDE, device) for pattern in different]
    _wait(device)
    start = time.perf_counter()
    heads = torch.tensor([different.index(pattern) for pattern in patterns], device=device)

    def stacked(lists: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [torch.stack(some)[heads][None] for some in zip(*lists, strict=True)]

    partly = stacked([listed(touched & ~filled) for touched, filled in found])
    whole = stacked([listed(filled) for _, filled in found])
    mask = BlockMask.from_kv_blocks(
        *(partly + whole),
        BLOCK_SIZE=SIDE,
        mask_mod=mask_mod(different, heads),
        seq_lengths=(n, n),
    )
    _wait(device)
    return mask, time.perf_counter() - start


def compiled() -> Any:
    """FlexAttention, compiled for the shapes of its first call and none other."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
