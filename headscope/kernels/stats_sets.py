"""Sets of keys as the kernels of statistics read them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

MOST_SETS = 16  # columns of one product


@dataclass(frozen=True, eq=False)
class SetTable:
    """Up to 16 sets as the columns of a table.

    Attributes:
        members: 1 where a key belongs to a set; filled up with keys and sets that do not.
        mixed: tiles of keys that are not all in the same sets.
    """

    members: Float[Tensor, "#batch #head key 16"]
    mixed: Int[Tensor, "#batch #head tile"]

    @classmethod
    def of(
        cls, sets: Bool[Tensor, "set #batch #head key"], tile: int, dtype: torch.dtype
    ) -> "SetTable":
        """Args: tile: keys of a tile."""
        n_keys = sets.shape[3]
        wide = pad(sets.movedim(0, 3), (0, MOST_SETS - len(sets), 0, -n_keys % tile))
        members = wide.to(dtype).contiguous()
        tiles = wide.unflatten(2, (-1, tile))
        return cls(members, (tiles.any(3) != tiles.all(3)).any(3).to(torch.int32).contiguous())

    @property
    def strides(self) -> tuple[int, int, int, int]:
        return *_strides(self.members), *_strides(self.mixed)


@dataclass(frozen=True, eq=False)
class TileList:
    """One set of keys, and the tiles that hold any of them.

    Attributes:
        members: 1 where a key belongs to the set.
        tiles: those with members, ascending; then the others.
        before: how many of them lie before each tile, and in all.
    """

    members: Int[Tensor, "#batch #head key"]
    tiles: Int[Tensor, "#batch #head tile_and_one"]
    before: Int[Tensor, "#batch #head tile_and_one"]

    @classmethod
    def of(cls, keys: Bool[Tensor, "#batch #head key"], tile: int) -> "TileList":
        """Args: tile: keys of a tile."""
        some = pad(keys, (0, -keys.shape[2] % tile + tile)).unflatten(2, (-1, tile)).any(3)
        counted = some.cumsum(2)
        return cls(
            keys.to(torch.int8).contiguous(),
            (~some).to(torch.int8).argsort(dim=2, stable=True).to(torch.int32).contiguous(),
            (counted - some.long()).to(torch.int32).contiguous(),
        )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.members, self.tiles, self.before

    @property
    def strides(self) -> tuple[int, int, int, int]:
        return *_strides(self.members), *_strides(self.tiles)


def _strides(x: Tensor) -> tuple[int, int]:
    """Of batch and heads, 0 where one stands for all."""
    return (x.stride(0) if len(x) > 1 else 0), (x.stride(1) if x.shape[1] > 1 else 0)
