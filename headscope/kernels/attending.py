"""An attention whose query heads have rules, on headscope's kernels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.kernels.choice import notice, runs, why_no_triton, why_not_these
from headscope.kernels.texts import texts_of
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.kernels.chosen import Chosen
    from headscope.kernels.mixed import Dispatch, Prepared, Ran
    from headscope.kernels.plan import Chooser, Plan, Text
    from headscope.kernels.tiles import Reach
    from headscope.merge import Part
    from headscope.patterns.rules import Rule

WHAT = "Sparse attention"


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
        for what in dict.fromkeys(x for x in self.sees if isinstance(x, Pattern)):
            yield what, [head for head, other in enumerate(self.sees) if other == what]
        for number, selection in enumerate(self.selections):
            heads = [
                head
                for head, other in enumerate(self.sees)
                if isinstance(other, tuple) and other[0] == number
            ]
            yield _of_all(selection, self.heads_of[number], n_heads), heads


def takes(attention: "Attention", rows: Bool[Tensor, "batch query"] | None) -> bool:
    """Whether Triton computes this attention; says once why not, or refuses if it was asked for."""
    return runs(_why_not(attention, rows), WHAT)


def _why_not(attention: "Attention", rows: Tensor | None) -> str | None:
    if reason := why_no_triton(attention.q.device):
        return reason
    if attention.edits:
        return "another method changes logits or hides keys"
    if rows is not None:
        return "the rules hold in some rows only"
    if attention.mask is not None or attention.key_positions.ndim == 3:
        return "the mask is written out, or heads hold different keys"
    if attention.needs_grad:
        return "a gradient is asked for (torch.no_grad() avoids it)"
    if attention.scale <= 0:
        return "logits are scaled by a number that is not above 0"
    return why_not_these(attention.q, attention.k, attention.v)


def resolve(attention: "Attention", rules: Sequence["Rule | Selection"]) -> Resolved:
    """Ask each rule once; what chooses by content is asked about the KV groups that have it."""
    from headscope.patterns.selectors.base import Selector

    sees: dict[int, Pattern | tuple[int, int]] = {}
    selections: list[Selection] = []
    heads_of: list[tuple[int, ...]] = []
    for rule in dict.fromkeys(rules):
        heads = [head for head, other in enumerate(rules) if other == rule]
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
        _check(rule, attention, len(asked))
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


def _check(selection: Selection, attention: "Attention", heads: int) -> None:
    """Refuse a selection that was made for other keys."""
    batch, keys = len(attention.q), attention.n_keys
    if selection.columns is not None and selection.columns.shape[2] != keys:
        raise HeadscopeError(
            f"The selection was made for {selection.columns.shape[2]} keys, and there are {keys}; "
            "resolve the rule for this attention."
        )
    for found in (selection.blocks, selection.columns):
        if found is not None and found.shape[:2] not in ((batch, heads), (1, heads), (1, 1)):
            raise HeadscopeError(
                f"The selection was made for {tuple(found.shape[:2])} sequences and heads, and "
                f"there are {(batch, heads)}; resolve the rule for this attention."
            )


@dataclass(frozen=True, eq=False)
class Ready:
    """All that comes before the launches.

    Attributes:
        plan: which heads go where.
        chosen: lists of the keys that selections hold; None where there are none.
        resolved: what the rules mean.
    """

    plan: "Prepared"
    chosen: "Chosen | None"
    resolved: Resolved

    def run(self, attention: "Attention") -> "tuple[Part, Ran]":
        """(z, lse) of the attention that it was made for, and how they came about."""
        from headscope.kernels import mixed

        with torch.no_grad():
            q, k, v = (_rows(x) for x in (attention.q, attention.k, attention.v))
            scale, softcap = attention.scale, attention.softcap
            z, lse, ran = mixed.attend(self.plan, q, k, v, scale, softcap, self.chosen)
        return (z, lse), ran


def attend(
    attention: "Attention",
    rules: Sequence["Rule | Selection"],
    dispatch: "Dispatch" = "auto",
) -> "tuple[Part, Ran, Resolved] | None":
    """(z, lse) of an attention that Triton takes, how they came about, and what the rules meant.

    None where its tokens do not stand one after the other in every sequence.
    """
    found = ready(attention, rules, dispatch)
    return None if found is None else (*found.run(attention), found.resolved)


def ready(
    attention: "Attention",
    rules: Sequence["Rule | Selection"],
    dispatch: "Dispatch" = "auto",
) -> "Ready | None":
    """What `attend` does before it launches: rules are resolved, lists built, plans made or found.

    None where its tokens do not stand one after the other in every sequence.
    """
    from headscope.kernels import mixed
    from headscope.kernels.chosen import table_of
    from headscope.kernels.tiles import Reach

    texts = texts_of(attention)
    if texts is None:
        return None
    with torch.no_grad():
        found = resolve(attention, rules)
        reach = Reach(attention.window, attention.chunk)
        if not all(_simple(one, reach, texts) for one in found.selections):
            plan = mixed.Prepared(_by_pairs(attention, found, reach, texts), (), False)
            return Ready(plan, None, found)
        case = mixed.Case(
            heads=_heads(found),
            texts=texts,
            reach=reach,
            shape=(
                len(attention.q),
                attention.n_heads,
                attention.n_kv_heads,
                attention.n_queries,
                attention.n_keys,
                attention.q.shape[3],
            ),
            softcap=attention.softcap is not None,
            packed=False,
            dispatch=dispatch,
            device=attention.q.device,
        )
        plan, table = mixed.prepare(case), None
        selections = [_whole(one, attention) for one in found.selections]
        if selections:
            shift = texts[0].span.lowest - texts[0].key
            table = table_of(selections, shift, attention.q.device)
    return Ready(plan, table, found)


def attend_packed(
    tensors: tuple[Tensor, Tensor, Tensor],
    patterns: Sequence[Pattern],
    starts: Sequence[int],
    scale: float,
    softcap: float | None,
    window: int | None,
    dispatch: "Dispatch",
) -> "tuple[Tensor, Tensor, Ran]":
    """z, lse and how they came about, of texts that stand one after the other in a single row.

    Args:
        tensors: q, k and v.
        starts: where each text begins, and where the last one ends.
    """
    from headscope.kernels import mixed
    from headscope.kernels.plan import Text
    from headscope.kernels.tiles import Reach, Span

    q, k, v = map(_rows, tensors)
    texts = tuple(Text(0, a, a, Span(0, b - a, 0, b - a)) for a, b in pairwise(starts))
    case = mixed.Case(
        heads=tuple(patterns),
        texts=texts,
        reach=Reach(window),
        shape=(1, q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3]),
        softcap=softcap is not None,
        packed=len(texts) > 1,
        dispatch=dispatch,
        device=q.device,
    )
    with torch.no_grad():
        return mixed.attend(mixed.prepare(case), q, k, v, scale, softcap)


def _rows(x: Tensor) -> Tensor:
    """A tensor whose rows lie side by side in memory, copied where they do not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _heads(found: Resolved) -> "tuple[Pattern | Chooser, ...]":
    from headscope.kernels.plan import Chooser

    return tuple(
        sees if isinstance(sees, Pattern) else Chooser(*sees, found.selections[sees[0]].block)
        for sees in found.sees
    )


def _simple(selection: Selection, case_reach: "Reach", texts: "tuple[Text, ...]") -> bool:
    """Whether the kernel reads a selection from its blocks and columns."""
    from headscope.kernels.chosen import takes
    from headscope.kernels.tiles import Reach

    shifts = {text.span.lowest - text.key for text in texts}
    placed = selection.columns is None or len(shifts) == 1
    return takes(selection) and case_reach == Reach() and placed


def _whole(selection: Selection, attention: "Attention") -> Selection:
    """A selection whose tensors name every sequence."""

    def every(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.expand(len(attention.q), *x.shape[1:])

    return replace(selection, blocks=every(selection.blocks), columns=every(selection.columns))


def _by_pairs(
    attention: "Attention", found: Resolved, reach: "Reach", texts: "tuple[Text, ...]"
) -> "Plan":
    """A plan for selections of any kind: every pair of tokens is looked up, head by head."""
    from headscope.kernels.plan import assembled
    from headscope.kernels.tiles import by_pairs, tiling

    notice(
        "Some selected keys are no whole tiles of 64 tokens, or the layer has a window of its own: "
        "their tiles are found pair by pair, which takes longer than the attention."
    )
    device, parts = attention.q.device, []
    for text in texts:
        row = attention.batch_row(text.batch)
        for head, sees in enumerate(found.sees):
            if isinstance(sees, Pattern):
                parts.append((head, text, tiling(sees, text.span, reach, device)))
                continue
            number, place = sees
            selection = found.selections[number]
            index = torch.tensor([place], device=device)
            if max(x.shape[1] for x in (selection.blocks, selection.columns) if x is not None) > 1:
                selection = selection.heads(index)
            seen = _seen(selection.batch_row(text.batch), row, text, reach)
            parts.append((head, text, by_pairs(seen, text.span, device)))
    return assembled(parts, device)


def _seen(
    selection: Selection, attention: "Attention", text: "Text", reach: "Reach"
) -> "Callable[[Tensor, Tensor], Tensor]":
    """Whether a selection of one head lets pairs of positions be seen."""
    span = text.span

    def seen(query: Tensor, key: Tensor) -> Tensor:
        row = (query - span.first + text.query).clamp(0, attention.n_queries - 1)
        column = (key - span.lowest + text.key).clamp(0, attention.n_keys - 1)
        return selection.mask(attention, row, column)[0, 0] & reach.mask(query, key)

    return seen
