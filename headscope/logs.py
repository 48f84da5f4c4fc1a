"""Logarithms of a pattern, block by block: what statistics over many rows are made of."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import threshold

from headscope.blocks import block_logits, budget, columns, finite, wide, wide_dtype

if TYPE_CHECKING:
    from headscope.attention import Attention

# Stands for -inf: exp of less is no normal float32, and takes a CPU fifty times as long.
LOWEST = -80.0


class Logs:
    """log A for blocks of a pattern, `LOWEST` where A is 0, in memory that is used again.

    Attributes:
        lse: of every row, 0 where a row sees no key.
    """

    def __init__(self, attention: "Attention", rows: int, width: int) -> None:
        """Args: rows, width: of most blocks, in queries and keys; larger ones allocate anew."""
        self.attention = attention
        lse = finite(attention.lse()).to(wide_dtype(attention.q))
        self.lse: Float[Tensor, "batch head query"] = lse
        # A block is written over, as fetching memory costs as much as the work; not where a
        # backward pass needs what it held.
        self._kept = not attention.needs_grad
        self._size = attention.q.shape[0] * attention.n_heads * rows * min(width, attention.n_keys)
        self._scratch: dict[str, Tensor] = {}

    def __call__(
        self, rows: slice | Tensor, keys: slice, seen: Bool[Tensor, " batch #head row key"] | None
    ) -> Float[Tensor, "batch head row key"]:
        """The logarithms of some rows.

        Args:
            seen: pairs that count, where not all of them do; others are `LOWEST`. Where it is
                left out, a pair that is not visible has any logarithm from `LOWEST` to 0.
        """
        attention = self.attention
        if attention.softcap is not None or attention.edits:
            rows = columns(rows, self.lse)
            logits = block_logits(attention, rows, keys)
            x = (logits - self.lse[:, :, rows, None]).clamp(LOWEST, 0)
            return x if seen is None else x.masked_fill(~seen, LOWEST)
        heads = "b (k g) q d -> (b k) (g q) d"
        q = rearrange(wide(attention.q[:, :, rows]), heads, g=attention.group)
        lse = rearrange(self.lse[:, :, rows, None], heads, g=attention.group)
        k = rearrange(wide(attention.k[:, :, keys]), "b k j d -> (b k) d j")
        # Not as one more coordinate of the product: there it would be rounded to TF32 where that
        # is allowed, and with it a whole row.
        out = self._room("log", (*q.shape[:2], k.shape[2]))
        x = torch.baddbmm(-lse, q, k, alpha=attention.scale, out=out)
        x = torch.clamp(x, LOWEST, 0, out=out)
        x = rearrange(x, "(b k) (g q) j -> b (k g) q j", b=len(self.lse), g=attention.group)
        return x if seen is None else x.masked_fill_(~seen, LOWEST)

    def exp(self, x: Float[Tensor, "batch head row key"]) -> Float[Tensor, "batch head row key"]:
        """A itself beside its logarithms, with e^`LOWEST` for 0 until it is `cut`."""
        return torch.exp(x, out=self._room("exp", x.shape))

    def exp_over(self, x: Float[Tensor, "batch head row key"]) -> Tensor:
        """The same where its logarithms stood."""
        return torch.exp(x, out=x if self._kept else None)

    def cut(self, p: Float[Tensor, "batch head row key"]) -> Tensor:
        """A with 0 for what stood for it."""
        return threshold(p, 2 * math.exp(LOWEST), 0.0, inplace=self._kept)

    def only(self, p: Tensor, counts: Bool[Tensor, " batch #head row key"]) -> Tensor:
        """A where it counts and 0 elsewhere, whatever stood there."""
        return p.masked_fill_(~counts, 0) if self._kept else p.masked_fill(~counts, 0)

    def times(self, x: Tensor, y: Tensor) -> Tensor:
        """A product, where x stood."""
        return torch.mul(x, y, out=x if self._kept else None)

    def _room(self, which: str, shape: Sequence[int]) -> Tensor | None:
        """Memory of a given shape that was used before; None where none is."""
        if not self._kept:
            return None
        size, held = math.prod(shape), self._scratch.get(which)
        if held is None or held.numel() < size:
            held = self._scratch[which] = self.lse.new_empty(max(size, self._size))
        return held[:size].view(shape)


def block_width(attention: "Attention", rows: int) -> int:
    """How many keys a block of some rows holds."""
    return max(1, budget(attention) // max(1, attention.q.shape[0] * attention.n_heads * rows))


def pieces(keys: slice, width: int) -> Iterator[slice]:
    """A slice in parts of at most `width` keys."""
    for start in range(keys.start, keys.stop, width):
        yield slice(start, min(start + width, keys.stop))
