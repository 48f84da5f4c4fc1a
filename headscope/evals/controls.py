"""Random head sets that a tested set is held against."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product

from headscope.errors import HeadscopeError
from headscope.heads import Head

HeadSet = tuple[Head, ...]
_NEAREST = 10


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


def check_layer_matched(heads: Sequence[Head], tested: Sequence[Head]) -> None:
    """Refuse a tested set that no other heads of the same layers can match.

    Raises:
        HeadscopeError: it names the layer.
    """
    for layer, wanted in Counter(layer for layer, _ in tested).items():
        total = sum(head[0] == layer for head in heads)
        if total - wanted < wanted:
            raise HeadscopeError(
                f"Layer {layer} has {total} heads and {wanted} of them are tested, so that "
                f"{total - wanted} are left where {wanted} have to be drawn; test fewer heads of "
                "it, or leave layer-matched controls out (kinds)."
            )


def norm_matched_sets(
    heads: Sequence[Head],
    tested: Sequence[Head],
    norms: Mapping[Head, float],
    count: int,
    seed: int = 0,
) -> list[HeadSet]:
    """Different sets in which each tested head is replaced by another of about its norm.

    Each replacement is drawn from the `_NEAREST` untested heads whose norms are nearest on a
    logarithmic scale, more where the sets would otherwise be too few; no head is in a set twice.
    Fewer than `count` where fewer exist. Where the tested heads write the most of all, those
    beside them write less: the match is as near as the model allows, and no nearer.

    Args:
        norms: of every head, e.g. the mean of ||z W_O||; positive.
    """
    others = [head for head in heads if head not in set(tested)]
    rng = random.Random(f"norm-{seed}")

    def near(head: Head, most: int) -> list[Head]:
        log = math.log(max(norms[head], 1e-12))
        return sorted(others, key=lambda h: abs(math.log(max(norms[h], 1e-12)) - log))[:most]

    drawn: dict[HeadSet, None] = {}
    first = min(max(_NEAREST, 2 * len(tested)), len(others))
    for most in range(first, len(others) + _NEAREST, _NEAREST):
        pools = [near(head, most) for head in tested]
        for _ in range(20 * count):
            if len(drawn) == count:
                return list(drawn)
            chosen = dict[Head, None]()
            for pool in rng.sample(pools, len(pools)):
                free = [head for head in pool if head not in chosen]
                if free:
                    chosen[rng.choice(free)] = None
            if len(chosen) == len(tested):
                drawn[tuple(sorted(chosen))] = None
    return list(drawn)


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
