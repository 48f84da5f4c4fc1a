"""Parts of a sequence that are read without each other."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.sinks_and_window import queries_at
from headscope.patterns.base import Pattern


def part_of(positions: Int[Tensor, "*n"], edges: tuple[int, ...]) -> Int[Tensor, "*n"]:
    """0 before the first edge, b + 1 in block b from edge b up to the next one, and one more from
    the last edge on."""
    bounds = torch.tensor(edges, device=positions.device)
    return torch.bucketize(positions.contiguous(), bounds, right=True)


@dataclass(frozen=True)
class _Apart(Pattern):
    """A query inside a block sees its own block and maybe what stands before the first; a query
    anywhere else sees everything.

    Attributes:
        edges: where the first block begins, and where each block ends.
        shared: whether blocks see what stands before the first.
    """

    edges: tuple[int, ...]
    shared: bool

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Tensor:
        at, of = part_of(query, self.edges), part_of(key, self.edges)
        seen = (at == of) | (at == len(self.edges))
        return seen | (of == 0) if self.shared else seen

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        if last >= self.edges[-1] or last < self.edges[0]:
            return [(0, last + 1)]
        begun = [edge for edge in self.edges if edge <= first]
        start = begun[-1] if begun else 0
        if self.shared and start > self.edges[0]:
            return [(0, self.edges[0]), (start, last + 1)] if self.edges[0] else [(start, last + 1)]
        return [(0 if self.shared else start, last + 1)]


def at_shared_positions(attention: Attention, edges: tuple[int, ...]) -> Attention:
    """The layer as if all blocks began where the first does, and what follows went on behind the
    longest; itself where it knows no positions."""
    rope, query, key = attention.rope, attention.query_positions, attention.key_positions
    if rope is None:
        return attention
    longest = max(stop - start for start, stop in pairwise(edges))
    ahead = [0, *(start - edges[0] for start in edges[:-1]), edges[-1] - edges[0] - longest]
    by_part = torch.tensor(ahead, device=attention.q.device)
    there = key - by_part[part_of(key, edges)]
    k = rope.rotate(rope.unrotate(attention.k, key), there)
    moved = (there != key)[..., None]
    k = torch.where(moved if key.ndim == 3 else moved[:, None], k, attention.k)
    q = queries_at(attention, query - by_part[part_of(query, edges)])
    return attention.with_q(q).with_k(k)


def attention_on_blocks(
    attention: Attention, edges: tuple[int, ...], judges: Bool[Tensor, "batch query"]
) -> Float[Tensor, "batch block"]:
    """What some rows give to each block, summed over them and over the layer's heads."""
    rows = judges.any(0).nonzero()[:, 0]
    weights = (attention.rows(rows) * judges[:, None, rows, None]).sum(2)
    part = part_of(attention.keys_by_head(), edges).expand_as(weights)
    sums = weights.new_zeros(*weights.shape[:2], len(edges) + 1)
    return sums.scatter_add(2, part, weights).sum(1)[:, 1:-1]
