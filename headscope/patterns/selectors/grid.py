"""Blocks of positions that the queries and keys of an attention fall into, and their means."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.blocks import Slots, query_span, wide
from headscope.patterns.selectors.fast import by_kernels

if TYPE_CHECKING:
    from headscope.attention import Attention


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows are blocks of queries, columns blocks of keys, both cut at multiples of `block`.

    Positions count, so that padding and caches move nothing, and what stands in a row or column
    depends on no other sequence of the batch.

    Attributes:
        attention: what is cut.
        block: tokens of a block.
        first: the block that the rows begin with.
        rows, columns: how many; keys behind the last query are in no column.
        kernels: whether Triton's kernels look at the attention.
    """

    attention: "Attention"
    block: int
    first: int
    rows: int
    columns: int
    kernels: bool = False

    @classmethod
    def of(cls, attention: "Attention", block: int) -> "Grid":
        first, last = query_span(attention)
        first, end, kernels = first // block, last // block + 1, by_kernels(attention)
        return cls(attention, block, first, end - first, end, kernels)

    # ---- what stands where -----------------------------------------------------------------

    @property
    def own(self) -> Int[Tensor, "row 1"]:
        """The column of each row's own keys."""
        return self.first + torch.arange(self.rows, device=self.attention.q.device)[:, None]

    @property
    def column(self) -> Int[Tensor, " column"]:
        return torch.arange(self.columns, device=self.attention.q.device)

    def row_of_queries(self) -> Int[Tensor, "batch 1 query"]:
        """The row of each query, one behind the last for padding."""
        query = self.attention.query_positions
        row = query.div(self.block, rounding_mode="floor") - self.first
        return torch.where(query < 0, self.rows, row)[:, None]

    def column_of_keys(self) -> Int[Tensor, "batch some_kv_head key"]:
        """The column of each key, one behind the last for those that no query sees."""
        key = self.attention.key_positions
        key = key[:, None] if key.ndim == 2 else key
        column = key.div(self.block, rounding_mode="floor").clamp(max=self.columns)
        return torch.where(key < 0, self.columns, column)

    def has_queries(self) -> Bool[Tensor, "batch row"]:
        return _counts(self.row_of_queries(), self.rows)[:, 0] > 0

    def within_reach(self, lowest: Int[Tensor, "*rows"]) -> Bool[Tensor, "*rows column"]:
        """Columns that a query at each position can see any of, in its layer's window or chunk."""
        far = torch.zeros_like(lowest)
        if self.attention.window is not None:
            far = lowest - self.attention.window + 1
        if self.attention.chunk is not None:
            far = torch.maximum(far, lowest // self.attention.chunk * self.attention.chunk)
        return (self.column + 1) * self.block > far[..., None]

    def filled(self) -> Bool[Tensor, "batch head column"]:
        """Columns that hold a key."""
        held = _counts(self.column_of_keys(), self.columns) > 0
        return held.repeat_interleave(self.attention.n_heads // held.shape[1], dim=1)

    def candidates(self) -> Bool[Tensor, "batch head row column"]:
        """Columns with keys that a row can see, as far as the layer itself lets it."""
        reach = self.within_reach(self.own[:, 0] * self.block)
        return self.filled()[:, :, None] & (self.column <= self.own) & reach

    def always(self, sink: int) -> Bool[Tensor, "row column"]:
        """Each row's own column, and those of the first tokens."""
        first = (self.column < columns_of(sink, self.block)) & (self.column <= self.own)
        return first | (self.column == self.own)

    @property
    def slots(self) -> Slots:
        """Those of the attention; kernels take none without."""
        assert self.attention.slots is not None
        return self.attention.slots

    # ---- means -----------------------------------------------------------------------------

    def mean_queries(
        self, x: Float[Tensor, "batch head query d"]
    ) -> Float[Tensor, "batch head row d"]:
        """Something of each query, averaged over the queries of every row; 0 where are none."""
        if self.kernels:
            return self._by_kernel(x, self.first, self.rows, self.slots.first_query)
        return _means(wide(x), self.row_of_queries(), self.rows)

    def mean_keys(
        self, x: Float[Tensor, "batch kv_head key d"]
    ) -> Float[Tensor, "batch kv_head column d"]:
        """Something of each key, averaged over the keys of every column; 0 where are none."""
        if self.kernels:
            return self._by_kernel(x, 0, self.columns, self.slots.first_key)
        return _means(wide(x), self.column_of_keys(), self.columns)

    def _by_kernel(self, x: Tensor, first: int, size: int, offset: int) -> Tensor:
        from headscope.kernels.means import block_means

        return block_means(x, self.block, first, size, offset)

    def logits(self) -> Float[Tensor, "batch head row column"]:
        """What mean queries and mean keys have in common, -inf where a row has no candidate.

        Scale and soft-cap of the layer are applied; other edits are not.
        """
        q = self.mean_queries(self.attention.q)
        return self.logits_of(q).masked_fill(~self.candidates(), -torch.inf)

    def logits_of(
        self, q: Float[Tensor, "batch head row d"]
    ) -> Float[Tensor, "batch head row column"]:
        """The same of given queries with all columns."""
        q = rearrange(q, "b (k g) i d -> b k g i d", g=self.attention.group)
        k = self.mean_keys(self.attention.k)
        with torch.autocast(q.device.type, enabled=False):  # which would round the scores
            product = einsum(q, k, "b k g i d, b k j d -> b k g i j") * self.attention.scale
        if self.attention.softcap is not None:
            product = torch.tanh(product / self.attention.softcap) * self.attention.softcap
        return rearrange(product, "b k g i j -> b (k g) i j")


def columns_of(tokens: int, block: int) -> int:
    """Blocks that the first tokens of a text reach into."""
    return -(-tokens // block)


def _means(x: Tensor, slot: Tensor, size: int) -> Tensor:
    counts = _counts(slot, size).clamp(min=1)
    slot = slot.expand(x.shape[:3])[..., None].expand_as(x)
    sums = x.new_zeros(*x.shape[:2], size + 1, x.shape[3]).scatter_add(2, slot, x)
    return sums[:, :, :size] / counts[..., None]


def _counts(slot: Tensor, size: int) -> Tensor:
    """How many of each slot there are, the one behind the last left out."""
    zeros = slot.new_zeros(*slot.shape[:2], size + 1)
    return zeros.scatter_add(2, slot, torch.ones_like(slot))[..., :size]
