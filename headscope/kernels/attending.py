"""An attention whose query heads have rules, on headscope's kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.edits import Restriction
from headscope.kernels.choice import chosen, on_its_device, runs, why_no_triton, why_not_these
from headscope.kernels.layout import side_by_side
from headscope.kernels.resolving import Resolved, resolve
from headscope.kernels.texts import texts_of
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.kernels.chosen import Chosen
    from headscope.kernels.mixed import Dispatch, Prepared, Ran
    from headscope.kernels.plan import Chooser, Text
    from headscope.kernels.tiles import Reach
    from headscope.merge import Part
    from headscope.patterns.rules import Rule

WHAT = "Sparse attention"
GAPS = "tokens of a sequence do not stand one after the other, or queries stand behind all keys"


def takes(attention: "Attention", rows: Bool[Tensor, "batch query"] | None) -> bool:
    """Whether Triton computes this attention; says once why not, or refuses if it was asked for."""
    return runs(_why_not(attention, rows), WHAT)


def by_one_pattern(attention: "Attention") -> "Part | None":
    """(z, lse) of an attention all of whose heads see one pattern, if Triton takes it; else None.

    Nothing is said of where it does not: nobody asked for it.
    """
    hidden = attention.edits[0] if len(attention.edits) == 1 else None
    if not (isinstance(hidden, Restriction) and hidden.everywhere) or chosen() == "reference":
        return None
    if attention.n_queries == 1:  # no work for a kernel that cuts rows into tiles
        return None
    whole = replace(attention, edits=())
    if not isinstance(hidden.pattern, Pattern) or _why_not(whole, None) is not None:
        return None
    found = attend(whole, [hidden.pattern] * attention.n_heads)
    return None if found is None else found[0]


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

    def run(
        self, attention: "Attention", with_lse: bool = True
    ) -> "tuple[Tensor, Tensor | None, Ran]":
        """(z, lse) of the attention that it was made for, and how they came about."""
        from headscope.kernels import mixed

        with torch.no_grad():
            q, k, v = (side_by_side(x) for x in (attention.q, attention.k, attention.v))
            scale, softcap = attention.scale, attention.softcap
            return mixed.attend(q, k, v, self.plan, scale, softcap, self.chosen, with_lse)


def attend(
    attention: "Attention",
    rules: Sequence["Rule | Selection"],
    dispatch: "Dispatch" = "auto",
) -> "tuple[Part, Ran, Resolved] | None":
    """(z, lse) of an attention that Triton takes, how they came about, and what the rules meant.

    None where its tokens do not stand one after the other in every sequence.
    """
    found = ready(attention, rules, dispatch)
    if found is None:
        return None
    z, lse, ran = found.run(attention)
    assert lse is not None
    return (z, lse), ran, found.resolved


@on_its_device
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
    from headscope.kernels.looked_up import plan_by_pairs
    from headscope.kernels.tiles import Reach

    texts = texts_of(attention)
    if texts is None:
        return None
    with torch.no_grad():
        found = resolve(attention, rules)
        reach = Reach(attention.window, attention.chunk)
        behind = any(text.key + text.span.keys < attention.n_keys for text in texts)
        if not all(_simple(one, reach, texts) for one in found.selections):
            by_pairs = plan_by_pairs(attention, found, reach, texts)
            return Ready(mixed.Prepared(by_pairs, (), False, behind), None, found)
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
            packed=behind,
            dispatch=dispatch,
            device=attention.q.device,
        )
        plan, table = mixed.prepare(case), None
        about = zip(found.selections, found.heads_of, strict=True)
        selections = [_whole(one, len(attention.q), len(heads)) for one, heads in about]
        if selections:
            table = table_of(selections, -texts[0].key, attention.q.device)
    return Ready(plan, table, found)


def attend_packed(
    tensors: tuple[Tensor, Tensor, Tensor],
    patterns: Sequence[Pattern],
    starts: Sequence[int],
    scale: float,
    softcap: float | None,
    window: int | None,
    dispatch: "Dispatch",
    with_lse: bool,
) -> "tuple[Tensor, Tensor | None, Ran]":
    """z, lse and how they came about, of texts that stand one after the other in a single row.

    Args:
        tensors: q, k and v.
        starts: where each text begins, and where the last one ends.
    """
    from headscope.kernels import mixed
    from headscope.kernels.plan import Text
    from headscope.kernels.tiles import Reach, Span

    q, k, v = map(side_by_side, tensors)
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
        return mixed.attend(q, k, v, mixed.prepare(case), scale, softcap, None, with_lse)


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

    # Of listed tiles all keys are held, and positions are those of one sequence.
    placed = all(text.span.lowest == 0 for text in texts)
    placed = placed and (selection.columns is None or len({text.key for text in texts}) == 1)
    return takes(selection) and case_reach == Reach() and placed


def _whole(selection: Selection, batch: int, heads: int) -> Selection:
    """A selection whose tensors name every sequence and head."""

    def every(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.expand(batch, heads, *x.shape[2:])

    return replace(selection, blocks=every(selection.blocks), columns=every(selection.columns))
