"""Random head sets that a tested set is held against."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product

from headscope.heads import Head

HeadSet = tuple[Head, ...]


def uniform_sets(
    heads: Sequence[Head], tested: Sequence[Head], count: int, seed: int = 0
) -> list[HeadSet]:
    """Different sets as large as the tested one, drawn from all other heads.

    Fewer than `count` where fewer exist.
    """
    return _drawn({0: [h for h in heads if h not in set(tested)]}, {0: len(tested)}, count,
                  random.Random(f"uniform-{seed}"))  # fmt: skip


def layer_matched_sets(
    heads: Sequence[Head], tested: Sequence[Head], count: int, seed: int = 0
) -> list[HeadSet]:
    """Different sets with as many heads in each layer as the tested one, none of them tested.

    Fewer than `count` where fewer exist: none at all if the tested heads fill half a layer.
    """
    wanted = Counter(layer for layer, _ in tested)
    others = {
        layer: [h for h in heads if h[0] == layer and h not in set(tested)] for layer in wanted
    }
    return _drawn(others, dict(wanted), count, random.Random(f"layer-{seed}"))


def _drawn(
    pools: dict[int, list[Head]], sizes: dict[int, int], count: int, rng: random.Random
) -> list[HeadSet]:
    """Different sets with so many heads of each pool."""
    exist = math.prod(math.comb(len(pools[key]), size) for key, size in sizes.items())
    keys = sorted(sizes)
    if exist <= 4 * count:
        # Drawing until the last of few is found would take long.
        every = product(*(combinations(pools[key], sizes[key]) for key in keys))
        sets = [tuple(sorted(head for part in parts for head in part)) for parts in every]
        return rng.sample(sets, min(count, len(sets)))
    drawn: dict[HeadSet, None] = {}
    while len(drawn) < count:
        parts = (rng.sample(pools[key], sizes[key]) for key in keys)
        drawn[tuple(sorted(head for part in parts for head in part))] = None
    return list(drawn)
