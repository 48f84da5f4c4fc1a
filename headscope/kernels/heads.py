"""Query heads in parts that kernels for grouped heads take."""

from collections import defaultdict
from collections.abc import Sequence


def even(heads: Sequence[int], group: int) -> list[list[int]]:
    """Query heads in parts, in each of which a KV head is read by as many of them as any other."""
    by_kv: dict[int, list[int]] = defaultdict(list)
    for head in heads:
        by_kv[head // group].append(head)
    sizes = sorted({len(some) for some in by_kv.values()})
    return [[h for some in by_kv.values() if len(some) == n for h in some] for n in sizes]
