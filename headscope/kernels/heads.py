"""Query heads that are alike, and in parts that kernels for grouped heads take."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def alike(of_heads: Sequence[T]) -> dict[T, list[int]]:
    """The heads that have the same, by what they have; in the order of first heads."""
    found: dict[T, list[int]] = {}
    for head, what in enumerate(of_heads):
        found.setdefault(what, []).append(head)
    return found


def even(heads: Sequence[int], group: int) -> list[list[int]]:
    """Query heads in parts, in each of which a KV head is read by as many of them as any other."""
    by_kv: dict[int, list[int]] = defaultdict(list)
    for head in heads:
        by_kv[head // group].append(head)
    sizes = sorted({len(some) for some in by_kv.values()})
    return [[h for some in by_kv.values() if len(some) == n for h in some] for n in sizes]


def as_slice(heads: Sequence[int]) -> slice | None:
    """Some heads as a slice, which cuts without a copy; None where distances are not even."""
    steps = {b - a for a, b in pairwise(heads)}
    return slice(heads[0], heads[-1] + 1, next(iter(steps), 1)) if len(steps) < 2 else None
