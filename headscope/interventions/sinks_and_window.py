"""What methods share that keep the first tokens and a window: sizes, patterns, moved queries."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _Beyond(Pattern):
    """Keys that are neither among the first `sink` nor in the window: what a stream gave up."""

    sink: int
    window: int

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Tensor:
        return (key >= self.sink) & (query - key >= self.window)


@dataclass(frozen=True)
class _FarSinks(Pattern):
    """The first `sink` keys, where they lie `distance` tokens or more behind the query."""

    sink: int
    distance: int

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Tensor:
        return (key < self.sink) & (query - key >= self.distance)

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(0, min(self.sink, last + 1))] if self.sink else []


@dataclass(frozen=True)
class _NearStream(Pattern):
    """The first `sink` keys and the last `window` ones, but none further than `limit` tokens."""

    sink: int
    window: int
    limit: int

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Tensor:
        distance = query - key
        return ((key < self.sink) | (distance < self.window)) & (distance <= self.limit)


def check_rotation(model: "HeadModel", whose: str, instead: str) -> None:
    """Refuse a model with a rotation that cannot be taken off and put on again."""
    for site in model.backend.sites:
        if isinstance(site.rotary, str):
            raise HeadscopeError(
                f"{whose} cannot move tokens of {model.name}: {site.rotary}; {instead}."
            )


def all_layers(model: "HeadModel", keys: int) -> Int[Tensor, "layer kv_head"]:
    """The same number of keys for every KV head."""
    return torch.full((model.n_layers, model.n_kv_heads), keys)


def queries_at(
    attention: Attention, positions: Int[Tensor, "batch query"]
) -> Float[Tensor, "batch head query d"]:
    """The queries as they would be at other positions; those that stay where they are, exactly."""
    rope, here = attention.rope, attention.query_positions
    assert rope is not None
    moved = rope.rotate(rope.unrotate(attention.q, here), positions)
    return torch.where((positions == here)[:, None, :, None], attention.q, moved)
