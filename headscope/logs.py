"""Logarithms of a pattern, block by block: what statistics over many rows are made of."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.blocks import block_logits, budget, finite, wide

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
        self.lse: Float[Tensor, "batch head query"] = wide(finite(attention.lse()))
        self._alone = attention.softcap is None and not attention.edits
        # A block is written over, as fetching memory costs as much as the work; not where a
        # backward pass needs what it held.
        self._kept = not attention.needs_grad
        self._size = attention.q.shape[0] * attention.n_heads * rows * min(width, attention.n_keys)
        self._scratch: dict[str, Tensor] = {}
        if self._alone:
            # A row's lse rides along as one more coordinate, so that one product gives the rest.
            self._k = wide(pad(attention.k, (0, 1), value=1.0))

    def __call__(
        self, rows: slice | Tensor, keys: slice, seen: Bool[Tensor, " batch #head row key"] | None
    ) -> Float[Tensor, "batch head row key"]:
        """The logarithms of some rows.

        Args:
            seen: pairs that count, where not all of them do; others are `LOWEST`. Where it is
                left out, a pair that is not visible has any logarithm from `LOWEST` to 0.
        """
        attention = self.attention
        if not self._alone:
            if isinstance(rows, slice):
                rows = torch.arange(rows.start, rows.stop, device=self.lse.device)
            logits = block_logits(attention, rows, keys)
            x = (logits - self.lse[:, :, rows, None]).clamp(LOWEST, 0)
            return x if seen is None else x.masked_fill(~seen, LOWEST)
        q = wide(attention.q[:, :, rows]) * attention.scale
        q = torch.cat((q, -self.lse[:, :, rows, None].to(q)), -1)
        q = rearrange(q, "b (k g) q d -> (b k) (g q) d", g=attention.group)
        k = rearrange(self._k[:, :, keys], "b k j d -> (b k) d j")
        x = torch.bmm(q, k, out=self.room("log", (*q.shape[:2], k.shape[2])))
        x = torch.clamp(x, LOWEST, 0, out=self.room("log", x.shape))
        x = rearrange(x, "(b k) (g q) j -> b (k g) q j", b=len(self.lse), g=attention.group)
        return x if seen is None else x.masked_fill_(~seen, LOWEST)

    def exp(self, x: Float[Tensor, "batch head row key"]) -> Float[Tensor, "batch head row key"]:
        """A itself, with e^`LOWEST` for 0: cut that off, or weigh it with 0."""
        return torch.exp(x, out=self.room("exp", x.shape))

    def exp_over(self, x: Float[Tensor, "batch head row key"]) -> Tensor:
        """The same where its logarithms stood."""
        return torch.exp(x, out=x if self._kept else None)

    def times(self, x: Tensor, y: Tensor) -> Tensor:
        """A product, where x stood."""
        return torch.mul(x, y, out=x if self._kept else None)

    def room(self, which: str, shape: Sequence[int]) -> Tensor | None:
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
