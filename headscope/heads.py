"""Names of heads: (layer, head) in code, L17H3 on paper."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from headscope.errors import HeadscopeError

Head = tuple[int, int]
_NO_HEADS = "names no head; give a list of names like 'L17H3' or of pairs (layer, head)."


def label(head: Head) -> str:
    """(17, 3) -> "L17H3"."""
    return f"L{head[0]}H{head[1]}"


def parse_head(text: str) -> Head:
    """ "L17H3" or "17-3" -> (17, 3)."""
    match = re.fullmatch(r"L?(\d+)(?:H|-|\.)(\d+)", text.strip(), re.IGNORECASE)
    if match is None:
        raise HeadscopeError(f"{text!r} names no head; write it as L17H3.")
    return int(match[1]), int(match[2])


def parse_heads(heads: Sequence[Head | str]) -> tuple[Head, ...]:
    """Heads given as pairs or names, in order, each once."""
    if isinstance(heads, str):
        heads = [heads]
    if not isinstance(heads, Iterable):
        raise HeadscopeError(f"{heads!r} {_NO_HEADS}")
    return tuple(dict.fromkeys(map(_pair, heads)))


def _pair(head: Any) -> Head:
    if isinstance(head, str):
        return parse_head(head)
    try:
        layer, number = map(index, head)  # integers of NumPy too, and no fractions
    except (TypeError, ValueError) as error:
        raise HeadscopeError(f"{head!r} {_NO_HEADS}") from error
    return layer, number


def by_layer(heads: Iterable[Head]) -> dict[int, list[int]]:
    """Heads grouped by their layer."""
    groups: dict[int, list[int]] = defaultdict(list)
    for layer, head in heads:
        groups[layer].append(head)
    return dict(groups)


def check_heads(heads: Iterable[Head], layers: Sequence[int], n_heads: int, model: str) -> None:
    """Refuse a head that a model does not have."""
    for layer, head in heads:
        if layer not in layers or not 0 <= head < n_heads:
            raise HeadscopeError(
                f"{model} has no head {label((layer, head))}: its attention layers run from "
                f"{layers[0]} to {layers[-1]}, with heads 0 to {n_heads - 1}."
            )


def selected_heads(
    heads: Sequence[Head | str], layers: Sequence[int], n_heads: int, model: str
) -> tuple[Head, ...]:
    """Heads given as pairs or names; an empty selection or an unknown head is refused."""
    chosen = parse_heads(heads)
    if not chosen:
        raise HeadscopeError("Name at least one head.")
    check_heads(chosen, layers, n_heads, model)
    return chosen
