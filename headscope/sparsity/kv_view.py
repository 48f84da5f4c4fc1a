"""Profiles of KV heads: one rule for all query heads that read the same keys, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from headscope.errors import HeadscopeError
from headscope.heads import Head, label
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import SparseProfile


@dataclass(frozen=True)
class MergeCost:
    """What one rule for each KV head costs at a length.

    Attributes:
        n: tokens.
        density: share of causal pairs that is computed, before and after; None where a text
            decides it.
        kv_bytes: of the KV cache in 2-byte numbers, before and after. They are the same where
            keys were held for the widest query head of a group already.
        widened: query heads that see more than their rule.
    """

    n: int
    density: tuple[float, float] | None
    kv_bytes: tuple[int, int]
    widened: tuple[Head, ...]

    def __str__(self) -> str:
        """All of it in one sentence."""
        if not self.widened:
            return "The query heads of every KV head have one rule already; merging costs nothing."
        names = ", ".join(map(label, self.widened[:8]))
        more = f" and {len(self.widened) - 8} more" if len(self.widened) > 8 else ""
        computed = "how much more is computed the text decides"
        if self.density is not None:
            before, after = self.density
            computed = f"{after:.1%} of the pairs are computed instead of {before:.1%}"
        before, after = (size / 2**20 for size in self.kv_bytes)
        return (
            f"Merged, {len(self.widened)} query heads see more than their rule ({names}{more}): "
            f"at {self.n:,} tokens {computed}, and the KV cache takes {after:,.1f} MiB instead of "
            f"{before:,.1f} (bfloat16)."
        )


@dataclass(frozen=True)
class KvView:
    """A profile with one rule for each KV head.

    Attributes:
        profile: the merged profile.
        before: the one that it was made of.
        widened: query heads that see more than their rule.
    """

    profile: SparseProfile
    before: SparseProfile
    widened: tuple[Head, ...]

    def cost(self, n: int) -> MergeCost:
        """What merging costs for a text of n tokens.

        Raises:
            HeadscopeError: n is below 1.
        """
        both = (self.before, self.profile)
        rules = [rule for one in both for layer in one.model.layers for rule in one.of_layer(layer)]
        held = [one.kv_bytes(n) for one in both]
        known = all(rule.density(n) is not None for rule in dict.fromkeys(rules))
        density = (self.before.density(n), self.profile.density(n)) if known else None
        return MergeCost(n, density, (held[0], held[1]), self.widened)


def kv_view(profile: SparseProfile) -> KvView:
    """One rule for the query heads of each KV head, which covers those that they had.

    Where they differ: full if one of them is full or no streaming rule, and otherwise streaming
    with the widest sink, window and growth among them.
    """
    rows, widened = [], []
    group = profile.model.group
    for layer in profile.model.layers:
        rules, row = profile.of_layer(layer), []
        for start in range(0, len(rules), group):
            mine = rules[start : start + group]
            cover = _cover(mine)
            row += [cover] * group
            widened += [(layer, start + i) for i, rule in enumerate(mine) if rule != cover]
        rows.append(row)
    merged = SparseProfile.of(profile.model, rows, notes=profile.notes)
    return KvView(merged, profile, tuple(widened))


def _cover(rules: Sequence[Rule]) -> Rule:
    if len(set(rules)) == 1:
        return rules[0]
    streaming = [rule for rule in rules if isinstance(rule, Streaming)]
    if len(streaming) < len(rules):
        return Full()
    return Streaming(
        max(rule.sink for rule in streaming),
        max(rule.window for rule in streaming),
        max(rule.growth for rule in streaming),
    )


def kv_rules(profile: SparseProfile, target: str) -> list[list[Rule]]:
    """The rules of KV heads, [layer][kv_head].

    Args:
        target: who asks for them, in a sentence.

    Raises:
        HeadscopeError: the query heads of a KV head have different rules.
    """
    group, found = profile.model.group, []
    for layer in profile.model.layers:
        rules = profile.of_layer(layer)
        for start in range(0, len(rules), group):
            if len(set(rules[start : start + group])) > 1:
                heads = [label((layer, head)) for head in (start, start + group - 1)]
                raise HeadscopeError(
                    f"{target} has one rule for each KV head, and the query heads {heads[0]} to "
                    f"{heads[1]}, which share one, have different ones; plan by KV head, or let "
                    "one rule cover theirs with merge=True (--merge on the command line)."
                )
        found.append(list(rules[::group]))
    return found
