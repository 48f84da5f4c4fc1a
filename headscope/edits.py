"""Changes to the logits of one attention, and the sets of keys and heads they name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.kernels.heads import alike
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.attention import Attention

# A set of keys: a pattern, a slice, a sequence of indices, or a bool mask of shape [key],
# [batch, key] or [batch, head, key].
Keys = Pattern | slice | list[int] | Tensor


@dataclass(frozen=True, eq=False)
class Bias:
    """An amount per head and query, added to the logits of a set of keys."""

    keys: Pattern | Bool[Tensor, "#batch #head key"]
    amount: Float[Tensor, "#batch #head #query"]

    @classmethod
    def of(cls, attention: "Attention", keys: Keys, amount: Tensor | float, heads: Any) -> "Bias":
        size = (attention.q.shape[0], attention.n_heads, attention.n_queries)
        like = attention.q.dtype if attention.q.dtype == torch.float64 else torch.float32
        amount = torch.as_tensor(amount, dtype=like, device=attention.q.device)
        amount = amount.reshape((1,) * (3 - amount.ndim) + amount.shape)
        if any(n not in (1, full) for n, full in zip(amount.shape, size, strict=True)):
            raise HeadscopeError(
                f"A bias needs an amount that broadcasts to [batch, head, query] = {size}, not "
                f"one of shape {tuple(amount.shape)}."
            )
        if heads is not None:
            index = as_indices(heads, attention.n_heads, "head").to(amount.device)
            chosen = torch.zeros(size[1], 1, dtype=torch.bool, device=amount.device)
            amount = torch.where(chosen.index_fill(0, index, True), amount, 0)
        return cls(keys if isinstance(keys, Pattern) else as_mask(attention, keys), amount)

    def logits(self, attention: "Attention", queries: Tensor, keys: Tensor) -> Tensor:
        """What it adds, over two index tensors that broadcast to the last axes of the answer."""
        chosen = key_mask(attention, self.keys, queries, keys)
        rows = queries if self.amount.shape[-1] > 1 else torch.zeros_like(queries)
        return torch.where(chosen, self.amount[..., rows], 0)

    def some_heads(self, index: Int[Tensor, " some"]) -> "Bias":
        keys = self.keys
        if isinstance(keys, Tensor) and keys.shape[1] > 1:
            keys = keys[:, index]
        return Bias(keys, self.amount[:, index] if self.amount.shape[1] > 1 else self.amount)

    def batch_row(self, row: int) -> "Bias":
        one = slice(row, row + 1)
        keys = self.keys
        if isinstance(keys, Tensor) and keys.shape[0] > 1:
            keys = keys[one]
        return Bias(keys, self.amount[one] if self.amount.shape[0] > 1 else self.amount)


@dataclass(frozen=True, eq=False)
class Restriction:
    """The chosen heads see only the keys inside a pattern, or those of a selection."""

    pattern: Pattern | Selection
    heads: Bool[Tensor, " head"]
    everywhere: bool = False  # known to name all heads and rows, without asking a device
    rows: Bool[Tensor, "batch query"] | None = None  # the others see what they saw
    amount: None = None

    @classmethod
    def of(
        cls,
        pattern: Pattern | Selection,
        heads: Sequence[int],
        n_heads: int,
        device: torch.device,
        rows: Bool[Tensor, "batch query"] | None = None,
    ) -> "Restriction":
        """Of some of a layer's heads, given by their indices."""
        chosen = set(heads)
        marked = kept_on(tuple(head in chosen for head in range(n_heads)), torch.bool, device)
        return cls(pattern, marked, rows is None and len(chosen) == n_heads, rows)

    def logits(self, attention: "Attention", queries: Tensor, keys: Tensor) -> Tensor:
        if isinstance(self.pattern, Selection):
            inside = self.pattern.mask(attention, queries, keys)
        else:
            inside = key_mask(attention, self.pattern, queries, keys)
        if self.rows is not None:
            inside = inside | ~self.rows[:, None][..., queries]
        if self.everywhere:  # without an axis of heads, which would multiply every mask
            return torch.where(inside, 0.0, -torch.inf)
        heads = self.heads.reshape(1, -1, *(1,) * (inside.ndim - 2))
        return torch.where(inside | ~heads, 0.0, -torch.inf)

    def some_heads(self, index: Int[Tensor, " some"]) -> "Restriction":
        pattern = self.pattern
        if isinstance(pattern, Selection):
            pattern = pattern.heads(index)
        return replace(self, pattern=pattern, heads=self.heads[index])

    def batch_row(self, row: int) -> "Restriction":
        pattern = self.pattern
        if isinstance(pattern, Selection):
            pattern = pattern.batch_row(row)
        rows = None if self.rows is None else self.rows[row : row + 1]
        return replace(self, pattern=pattern, rows=rows)


Edit = Bias | Restriction


@lru_cache(maxsize=1024)
def kept_on(values: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers on a device, kept: a copy to a GPU waits for all that it has to do. Never written."""
    with torch.inference_mode(False):  # what is kept must serve gradients too
        return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=1024)
def restrictions(patterns: tuple[Pattern, ...], device: torch.device) -> tuple[Restriction, ...]:
    """What the patterns of a layer's heads hide, one restriction for heads that are alike."""
    return tuple(
        Restriction.of(pattern, heads, len(patterns), device)
        for pattern, heads in alike(patterns).items()
        if pattern != Full()
    )


def key_mask(attention: "Attention", keys: Keys, queries: Tensor, columns: Tensor) -> Tensor:
    """Which keys belong to a set, over two index tensors that broadcast to the last axes.

    Returns:
        A bool tensor that broadcasts to [batch, head, *broadcast of queries and columns].
    """
    if isinstance(keys, Pattern):
        key = attention.keys_by_head()[..., columns]
        return keys.mask(attention.query_positions[:, None][..., queries], key)
    return as_mask(attention, keys)[..., columns]


def as_indices(index: Any, size: int, what: str) -> Tensor:
    """Indices of queries, keys or heads as a LongTensor; all of them if `index` is None.

    Raises:
        HeadscopeError: one of them is negative or too large.
    """
    if index is None:
        return torch.arange(size)
    if isinstance(index, slice):
        return torch.arange(size)[index]
    index = torch.as_tensor(index)
    if index.numel() == 0:
        return torch.zeros(0, dtype=torch.long)
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise HeadscopeError(f"Give the {what} indices as a list of integers.")
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
        bad = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise HeadscopeError(f"There is no {what} {bad}: indices run from 0 to {size - 1}.")
    return index.long()


def as_mask(attention: "Attention", keys: slice | list[int] | Tensor) -> Tensor:
    """A set of keys as a bool mask of shape [batch or 1, head or 1, key]."""
    device, n_keys = attention.q.device, attention.n_keys
    if not (isinstance(keys, Tensor) and keys.dtype == torch.bool):
        index = as_indices(keys, n_keys, "key").to(device)
        return torch.zeros(1, 1, n_keys, dtype=torch.bool, device=device).index_fill(2, index, True)
    mask = keys.to(device)
    if mask.ndim < 3:
        mask = mask.reshape(1, 1, -1) if mask.ndim == 1 else mask[:, None]
    size = (attention.q.shape[0], attention.n_heads)
    if mask.shape[2] != n_keys or any(
        n not in (1, full) for n, full in zip(mask.shape[:2], size, strict=True)
    ):
        raise HeadscopeError(
            f"A mask of keys needs the shape [batch, head, key] = {(*size, n_keys)} with 1 where "
            f"all are alike, not {tuple(keys.shape)}."
        )
    return mask
