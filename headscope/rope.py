"""Rotary position encoding, taken off and put on again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Pairing = Literal["half", "interleaved"]
Tables = Callable[[Int[Tensor, "batch n"], float | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Rope:
    """The rotation of one layer: x ↦ cos·x + sin·J(x), on its first 2·angles dimensions.

    Source: RoFormer (Su et al. 2021, arXiv 2104.09864), equation 34. "half" pairs dimension i with
    i + d/2 (GPT-NeoX, Llama), "interleaved" 2i with 2i + 1 (GPT-J, Cohere).
    """

    tables: Tables  # (rotary positions, base) -> cos, sin of shape [batch, n, angle]
    pairing: Pairing = "half"
    positions: Int[Tensor, "batch query"] | None = None  # of a pass, and the rotary positions that
    position_ids: Int[Tensor, "#batch query"] | None = None  # it used; alike if left out
    base: float | None = None  # the model's own (theta), where its config says one

    @cached_property
    def shift(self) -> Int[Tensor, " batch"] | int:
        """Rotary position of the first real token of each row."""
        if self.positions is None or self.position_ids is None:
            return 0
        real = (self.positions >= 0).int().argmax(1, keepdim=True)
        ids = self.position_ids.to(self.positions.device).expand_as(self.positions)
        return (ids.gather(1, real) - self.positions.gather(1, real))[:, 0]

    def batch_row(self, row: int) -> "Rope":
        """The rotation of one sequence of the batch."""
        one = slice(row, row + 1)
        ids = self.position_ids
        return replace(
            self,
            positions=None if self.positions is None else self.positions[one],
            position_ids=ids if ids is None or len(ids) == 1 else ids[one],
        )

    def rotate(
        self,
        x: Float[Tensor, "batch any_head n d"],
        positions: Int[Tensor, "batch n"] | Int[Tensor, "batch any_head n"],
        base: float | None = None,
    ) -> Float[Tensor, "batch any_head n d"]:
        """Encode positions into queries or keys that carry none.

        Args:
            x: queries or keys before rotation.
            positions: positions as in `Attention.query_positions`, per head if need be.
            base: another base (theta) than the model's own.
        """
        return self._turned(x, *self._angles(x, positions, base))

    def unrotate(
        self,
        x: Float[Tensor, "batch any_head n d"],
        positions: Int[Tensor, "batch n"] | Int[Tensor, "batch any_head n"],
        base: float | None = None,
    ) -> Float[Tensor, "batch any_head n d"]:
        """Take the encoding off again, cached keys included; scaled tables are undone too."""
        cos, sin = self._angles(x, positions, base)
        size = cos.square() + sin.square()
        return self._turned(x, cos / size, -sin / size)

    def _angles(self, x: Tensor, positions: Tensor, base: float | None) -> tuple[Tensor, Tensor]:
        shift = self.shift
        if isinstance(shift, Tensor):
            shift = shift.to(positions.device).reshape(-1, *(1,) * (positions.ndim - 1))
        # A padded slot has no position of its own; any angle will do where nothing is read.
        rotary = (positions + shift).clamp(min=0)
        tables = self.tables(rotary.reshape(rotary.shape[0], -1), base)
        cos, sin = (
            table.to(x.device, torch.promote_types(x.dtype, torch.float32)).reshape(
                -1, *((1,) if positions.ndim == 2 else ()), *rotary.shape[1:], table.shape[-1]
            )
            for table in tables
        )
        return cos, sin

    def _turned(
        self, x: Tensor, cos: Float[Tensor, "*n angle"], sin: Float[Tensor, "*n angle"]
    ) -> Tensor:
        angles = cos.shape[-1]
        rotated = x[..., : 2 * angles].to(cos.dtype)
        if self.pairing == "half":
            first, second = rotated.chunk(2, dim=-1)
        else:
            first, second = rotated[..., ::2], rotated[..., 1::2]
        one = torch.addcmul(first * cos, second, sin, value=-1)
        other = torch.addcmul(second * cos, first, sin)
        pairs = (one.to(x.dtype), other.to(x.dtype))
        if self.pairing == "interleaved":
            pairs = (torch.stack(pairs, dim=-1).flatten(-2),)
        return torch.cat((*pairs, x[..., 2 * angles :]), dim=-1)
