"""The engine that runs a profile: the reference in torch, one call for heads that are alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import wide_dtype
from headscope.edits import restrictions
from headscope.engines import Attended, dense
from headscope.kernels import attending
from headscope.kernels.choice import chosen, runs
from headscope.kernels.heads import alike, even
from headscope.merge import with_sink
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.patterns.selection import Selection
from headscope.run import Part
from headscope.sparsity.decoding import decode_step
from headscope.sparsity.profile import SparseProfile


@dataclass(frozen=True, eq=False)
class SparseEngine:
    """Computes z of every head over the keys that its rule lets it see, and no others.

    Attributes:
        profile: rules by layer and head.
        part: the rows that they hold in; the others see everything.
    """

    profile: SparseProfile
    part: Part = "all"

    def __call__(self, attention: Attention) -> Attended:
        return self.on_heads(attention, range(attention.n_heads))

    def on_heads(self, attention: Attention, heads: Sequence[int]) -> Attended:
        """The same for an attention that has only some of its layer's query heads.

        Args:
            heads: their indices in the layer.
        """
        of_layer = self.profile.of_layer(attention.layer)
        return attend_sparsely(attention, [of_layer[head] for head in heads], self._rows(attention))

    def _rows(self, attention: Attention) -> Bool[Tensor, "batch query"] | None:
        """The rows that rules hold in; None for all of them."""
        if self.part == "all":
            return None
        assert attention.run is not None  # a model's attention always has one
        rows = attention.run.rows_in(self.part, attention.query_positions)
        real = attention.query_positions >= 0
        return None if bool((rows | ~real).all()) else rows


def attend_sparsely(
    attention: Attention, rules: Sequence[Rule], rows: Bool[Tensor, "batch query"] | None = None
) -> Attended:
    """Attention of one layer in which every query head has a rule.

    It runs on headscope's kernels where they take it, and else by reference.

    Args:
        rules: of the query heads of this attention, in order.
        rows: the queries that they hold for; all if left out.
    """
    if (rows is not None and not bool(rows.any())) or all(rule == Full() for rule in rules):
        return dense(attention)
    step = attention.n_queries == 1
    if step and rows is None and (done := decode_step(attention, rules)):
        return done
    # A single row of any other rule is no work for a kernel that cuts rows into tiles.
    if not (step and chosen() == "auto") and attending.takes(attention, rows):
        done = _on_triton(attention, rules)
        if done is not None:
            return done
    return attend_by_reference(attention, rules, rows)


def attend_by_reference(
    attention: Attention,
    rules: Sequence[Rule | Selection],
    rows: Bool[Tensor, "batch query"] | None = None,
) -> Attended:
    """The same in torch, one call for heads that are alike: the definition of what kernels do."""
    different = {rule: heads for rule, heads in alike(rules).items() if rule != Full()}
    if not different:
        return dense(attention)
    selections = {
        rule: rule if isinstance(rule, Selection) else rule.resolve(attention) for rule in different
    }
    run = attention  # with all that was hidden, for those who look at it afterwards
    for rule, heads in different.items():
        run = run.with_pattern(_plain(selections[rule]), heads, rows)
    z = attention.v.new_empty(*attention.q.shape[:3], attention.v.shape[3])
    lse = z.new_empty(z.shape[:3], dtype=wide_dtype(z))
    free = True  # whether every part's kernel gave its log-sum-exp away
    for rule, heads in even_groups(rules, attention.group):
        index = torch.tensor(heads, device=z.device)
        part = attention.some_heads(heads)
        if rule in selections:
            part = part.with_pattern(_plain(selections[rule].heads(index)), rows=rows)
        done = dense(part)
        z[:, index] = done.z
        free = free and done.attention.known_lse is not None
        if free:
            lse[:, index] = done.lse.to(lse.dtype)
    return Attended(z, run, lse if free else None)


def _on_triton(attention: Attention, rules: Sequence[Rule]) -> Attended | None:
    """The same from headscope's kernels; None where they do not know the case."""
    found = attending.attend(attention, rules)
    if found is None:
        runs(attending.GAPS, attending.WHAT)
        return None
    part, _, resolved = found
    z, lse = with_sink(*part, attention.sink_logits)
    if not resolved.selections:
        patterns = tuple(sees for sees in resolved.sees if isinstance(sees, Pattern))
        hidden = restrictions(patterns, attention.q.device)
        return Attended(z, replace(attention, known_lse=lse, edits=hidden))
    run = attention
    for what, heads in resolved.by_meaning(attention.n_heads):
        if what != Full():
            run = run.with_pattern(what, heads)
    return Attended(z, replace(run, known_lse=lse))


def even_groups(
    rules: Sequence[Rule | Selection], group: int
) -> Iterator[tuple[Rule | Selection, list[int]]]:
    """Query heads of one rule, cut so that each KV head of a part is read by as many of them."""
    for rule, heads in alike(rules).items():
        for part in even(heads, group):
            yield rule, part


def _plain(selection: Selection) -> Pattern | Selection:
    """A selection that is a pattern alone, as that: it needs no axis of heads."""
    alone = selection.blocks is None and selection.columns is None
    return selection.ranges if alone and selection.ranges is not None else selection
