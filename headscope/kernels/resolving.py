"""What rules mean for one attention, and whether selections were made for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headscope.blocks import query_span
from headscope.errors import HeadscopeError
from headscope.kernels.heads import alike
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.patterns.rules import Rule


@dataclass(frozen=True, eq=False)
class Resolved:
    """What rules mean for one attention.

    Attributes:
        sees: of each query head a pattern, or the number of a selection and its head in it.
        selections: made of the attention's keys and queries.
        heads_of: the query heads that each of them is about.
    """

    sees: tuple["Pattern | tuple[int, int]", ...]
    selections: tuple[Selection, ...]
    heads_of: tuple[tuple[int, ...], ...]

    def by_meaning(self, n_heads: int) -> "Iterator[tuple[Pattern | Selection, list[int]]]":
        """Patterns, and selections as those of all heads of the attention, with who has them."""
        what = alike([sees if isinstance(sees, Pattern) else sees[0] for sees in self.sees])
        for sees, heads in what.items():
            if isinstance(sees, Pattern):
                yield sees, heads
            else:
                yield _of_all(self.selections[sees], self.heads_of[sees], n_heads), heads


def resolve(attention: "Attention", rules: Sequence["Rule | Selection"]) -> Resolved:
    """Ask each rule once; what chooses by content is asked about the KV groups that have it."""
    patterns = [rule for rule in rules if isinstance(rule, Pattern)]
    if len(patterns) == len(rules):  # most layers of most profiles, and nothing to ask
        return Resolved(tuple(patterns), (), ())
    from headscope.patterns.selectors.base import Selector

    sees: dict[int, Pattern | tuple[int, int]] = {}
    selections: list[Selection] = []
    heads_of: list[tuple[int, ...]] = []
    for rule, heads in alike(rules).items():
        if isinstance(rule, Pattern):
            sees |= dict.fromkeys(heads, rule)
            continue
        asked = list(range(attention.n_heads))
        if isinstance(rule, Selector):
            kv = {head // attention.group for head in heads}
            asked = [head for head in asked if head // attention.group in kv]
            some = attention if len(asked) == attention.n_heads else attention.some_heads(asked)
            rule = rule.resolve(some)
        if rule.ranges is not None and rule.blocks is None and rule.columns is None:
            sees |= dict.fromkeys(heads, rule.ranges)
            continue
        check(rule, attention, len(asked))
        sees |= {head: (len(selections), asked.index(head)) for head in heads}
        selections.append(rule)
        heads_of.append(tuple(asked))
    by_head = tuple(sees[head] for head in range(attention.n_heads))
    return Resolved(by_head, tuple(selections), tuple(heads_of))


def _of_all(selection: Selection, heads: tuple[int, ...], n_heads: int) -> Selection:
    """A selection of some heads as one of all, in which the others see nothing through it."""

    def spread(x: Tensor | None) -> Tensor | None:
        if x is None or x.shape[1] == 1 or len(heads) == n_heads:
            return x
        whole = x.new_zeros(len(x), n_heads, *x.shape[2:])
        whole[:, list(heads)] = x
        return whole

    return replace(selection, blocks=spread(selection.blocks), columns=spread(selection.columns))


def check(selection: Selection, attention: "Attention", heads: int) -> None:
    """Refuse a selection that was made for other tokens, heads or sequences.

    Args:
        heads: that it has to be about.

    Raises:
        HeadscopeError: it was.
    """
    again = "resolve the rule for this attention"
    batch, keys = len(attention.q), attention.n_keys
    for found in (selection.blocks, selection.columns):
        if found is None:
            continue
        if found.dtype != torch.bool or found.device != attention.q.device:
            raise HeadscopeError(
                f"A selection is of bools on {attention.q.device}, as its attention is, and not of "
                f"{str(found.dtype).removeprefix('torch.')} on {found.device}."
            )
        if found.shape[0] not in (1, batch) or found.shape[1] not in (1, heads):
            raise HeadscopeError(
                f"The selection was made for {tuple(found.shape[:2])} sequences and heads, and "
                f"there are {(batch, heads)}; {again}."
            )
    if selection.columns is not None and selection.columns.shape[2] != keys:
        raise HeadscopeError(
            f"The selection was made for {selection.columns.shape[2]} keys, and there are {keys}; "
            f"{again}."
        )
    if selection.blocks is not None:
        _check_blocks(selection, selection.blocks, attention, again)


def _check_blocks(selection: Selection, blocks: Tensor, attention: "Attention", again: str) -> None:
    block = selection.block
    if block < 1:
        raise HeadscopeError(f"Blocks of a selection have a token at least, not {block}.")
    first, last = query_span(attention)
    rows = (first // block, last // block + 1)
    held = (selection.first_block, selection.first_block + blocks.shape[2])
    if held[0] > rows[0] or held[1] < rows[1] or blocks.shape[3] < rows[1]:
        raise HeadscopeError(
            f"The selection was made for blocks {held[0]} to {held[1] - 1} of queries and "
            f"{blocks.shape[3]} of keys, and queries of {block} tokens a block stand in {rows[0]} "
            f"to {rows[1] - 1}; {again}."
        )
