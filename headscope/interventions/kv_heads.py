"""KV heads as a method's parameter: (layer, kv_head), or L3KV1 on paper."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from headscope.errors import HeadscopeError
from headscope.heads import Head, parse_heads

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.model import HeadModel


def parse_kv_heads(heads: Any) -> tuple[Head, ...]:
    """KV heads given as pairs or names, in order, each once.

    Raises:
        HeadscopeError: one of them is neither; a query head's name, L3H1, is none.
    """
    given = [heads] if isinstance(heads, str) else heads
    if not isinstance(given, Iterable):
        raise HeadscopeError(
            f"{heads!r} names no KV head; give pairs (layer, kv_head) or names like 'L3KV1'."
        )
    return parse_heads([_named(head) if isinstance(head, str) else head for head in given])


def _named(text: str) -> Head:
    match = re.fullmatch(r"L?(\d+)(?:KV|-|\.)(\d+)", text.strip(), re.IGNORECASE)
    if match is None:
        raise HeadscopeError(f"{text!r} names no KV head; write it as L3KV1.")
    return int(match[1]), int(match[2])


def check_kv_heads(heads: Iterable[Head], model: "HeadModel") -> None:
    """Refuse a KV head that a model does not have."""
    for layer, head in heads:
        if layer not in model.layers or not 0 <= head < model.n_kv_heads:
            raise HeadscopeError(
                f"{model.name} has no KV head L{layer}KV{head}: its attention layers run from "
                f"{model.layers[0]} to {model.layers[-1]}, with KV heads 0 to "
                f"{model.n_kv_heads - 1}."
            )


def kv_heads_of(heads: Iterable[Head], group: int) -> tuple[Head, ...]:
    """The KV heads that some query heads read."""
    return tuple(sorted({(layer, head // group) for layer, head in heads}))


def from_the_bottom(
    head_map: "HeadMap", score: str, values: Float[np.ndarray, " head"], seed: int = 0
) -> Int[np.ndarray, " head"]:
    """The places of some heads, the one that a score speaks for least first.

    Args:
        score: of a score or a role, which says whether high or low values speak for it.
        values: what it gives the heads.
        seed: of the order among equals, which is drawn.
    """
    if head_map.lowest_first(score):
        values = -values
    drawn = np.random.default_rng(seed).random(len(values))
    # A head without a value is spoken for by nothing.
    return np.lexsort((drawn, np.nan_to_num(values, nan=-np.inf)))


def ranked_kv_heads(head_map: "HeadMap", score: str, seed: int = 0) -> Sequence[Head]:
    """All KV heads of a map, the one that the score speaks for least first.

    Args:
        score: of a score or a role; a KV head has what its query heads have at most, or on
            average where the score says so.
        seed: of the order among equals, which is drawn.
    """
    table = head_map.kv_heads()
    values = table[head_map.score_of(score)].to_numpy(float)
    order = from_the_bottom(head_map, score, values, seed)
    places = list(zip(table["layer"], table["kv_head"], strict=True))
    return [(int(places[i][0]), int(places[i][1])) for i in order]
