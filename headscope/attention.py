"""One softmax-attention layer just before it runs, and what can be asked of it.

The pattern is never stored. Every answer streams over blocks of whole rows, so that memory grows
with the number of keys and not with its square; this torch version is the definition that faster
kernels are held to. No other module computes a softmax of q·k.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope import subset
from headscope.answers import RowStats, block_map, column_means, lse, mass, mass_on_sets, row_stats
from headscope.blocks import (
    Slots,
    Tile,
    block_logits,
    blocks,
    budget,
    columns,
    final_logits,
    finite,
    fold,
    recomputed,
    tile,
    weigh,
    wide,
)
from headscope.edits import Bias, Edit, Keys, Restriction, as_indices, key_mask
from headscope.errors import HeadscopeError
from headscope.merge import Part
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection
from headscope.sweep import Sweep, sweep

if TYPE_CHECKING:
    from headscope.cache import LayerCache
    from headscope.rope import Rope
    from headscope.run import Run

_DENSE_LIMIT = 2**28


@dataclass(frozen=True, eq=False)
class Attention:
    """What one layer is about to compute: z = softmax(mask(softcap(scale * q k^T) + edits)) v.

    Answers describe these q, k, v and the edits made so far, not those made further in. They are
    differentiable; blocks are recomputed in the backward pass.
    """

    layer: int
    q: Float[Tensor, "batch head query d"]  # after q/k norm and position encoding
    k: Float[Tensor, "batch kv_head key d"]  # grouped heads are never expanded
    v: Float[Tensor, "batch kv_head key dv"]
    scale: float
    query_positions: Int[Tensor, "batch query"]  # -1 is padding
    key_positions: Int[Tensor, "batch key"] | Int[Tensor, "batch kv_head key"]  # -1: padding, or
    # a key that this kv_head does not hold
    softcap: float | None = None
    window: int | None = None  # a key is seen while query - key < window
    chunk: int | None = None  # a key is seen from its own chunk of this many tokens only
    sink_logits: Float[Tensor, " head"] | None = None  # learned, joins every softmax of its head
    mask: Bool[Tensor, " batch #head query key"] | None = None  # what no rule above describes
    slots: Slots | None = None  # None: unknown; answers stay right and take longer
    rope: "Rope | None" = None
    hidden: Float[Tensor, "batch query model"] | None = None  # the layer's input to q, k and v
    cache: "LayerCache | None" = None
    run: "Run | None" = None
    edits: tuple[Edit, ...] = ()
    known_lse: Float[Tensor, "batch head query"] | None = None  # left by an engine that had it

    # ---- shape -----------------------------------------------------------------------------

    @property
    def n_heads(self) -> int:
        return self.q.shape[1]

    @property
    def n_kv_heads(self) -> int:
        return self.k.shape[1]

    @property
    def n_queries(self) -> int:
        return self.q.shape[2]

    @property
    def n_keys(self) -> int:
        return self.k.shape[2]

    @property
    def group(self) -> int:
        """Query heads that share one kv_head."""
        return self.n_heads // self.n_kv_heads

    @property
    def needs_grad(self) -> bool:
        """Whether an answer has to be differentiated: blocks are then recomputed, not kept."""
        inputs = (self.q, self.k, self.v, self.sink_logits, *(e.amount for e in self.edits))
        return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)

    # ---- who may see whom ------------------------------------------------------------------

    @property
    def only_causal(self) -> bool:
        """Whether a query sees every earlier key that is held: no window, chunk or mask."""
        return self.window is None and self.chunk is None and self.mask is None

    def visible(self, queries: Any = None) -> Bool[Tensor, " batch #head query key"]:
        """Whether each query may see each key: the one truth, before edits.

        Args:
            queries: indices of queries; all of them if left out. Memory is rows times keys.
        """
        rows = as_indices(queries, self.n_queries, "query").to(self.q.device)
        keys = torch.arange(self.n_keys, device=self.q.device)
        return self.visible_at(rows[:, None], keys[None, :])

    def keys_by_head(self) -> Int[Tensor, " batch #head key"]:
        """`key_positions` with an axis for query heads, of size 1 where all hold the same keys."""
        if self.key_positions.ndim == 2:
            return self.key_positions[:, None]
        return self.key_positions.repeat_interleave(self.group, dim=1)

    def visible_at(
        self, queries: Int[Tensor, "..."], keys: Int[Tensor, "..."]
    ) -> Bool[Tensor, " batch #head ..."]:
        """The same over index tensors that broadcast to the last axes of the answer."""
        query = self.query_positions[:, None][..., queries]
        key = self.keys_by_head()[..., keys]
        seen = (key >= 0) & (key <= query)
        if self.window is not None:
            seen &= query - key < self.window
        if self.chunk is not None:
            seen &= query // self.chunk == key // self.chunk
        if self.mask is not None:
            seen = seen & self.mask[..., queries, keys]
        return seen

    # ---- changed attentions ----------------------------------------------------------------

    def with_q(self, q: Float[Tensor, "batch head query d"]) -> "Attention":
        """The same layer with other queries."""
        return self._replace("q", q)

    def with_k(self, k: Float[Tensor, "batch kv_head key d"]) -> "Attention":
        """The same layer with other keys, for this call only: the cache keeps its own."""
        return self._replace("k", k)

    def with_v(self, v: Float[Tensor, "batch kv_head key dv"]) -> "Attention":
        """The same layer with other values, for this call only: the cache keeps its own."""
        return self._replace("v", v)

    def _replace(self, name: str, value: Tensor) -> "Attention":
        old = getattr(self, name)
        if value.shape != old.shape:
            raise HeadscopeError(
                f"Layer {self.layer}: {name} has the shape {tuple(old.shape)}; a tensor of shape "
                f"{tuple(value.shape)} cannot take its place."
            )
        return dataclasses.replace(self, known_lse=None, **{name: value})

    def with_bias(self, keys: Keys, amount: Tensor | float, heads: Any = None) -> "Attention":
        """Add to the logits of a set of keys: the exact form of multiplying attention on it.

        Adding log(c) multiplies the weight of each key of the set by c before the row is
        normalised again; -inf removes them (knockout).

        Args:
            keys: the keys, as a `Pattern`, a slice, indices, or a bool mask of shape [key],
                [batch, key] or [batch, head, key].
            amount: logits to add: a number, or a tensor that broadcasts to [batch, head, query].
            heads: query heads that are changed; all if left out.
        """
        bias = Bias.of(self, keys, amount, heads)
        return dataclasses.replace(self, known_lse=None, edits=(*self.edits, bias))

    def with_pattern(
        self,
        pattern: Pattern | Selection,
        heads: Any = None,
        rows: Bool[Tensor, "batch query"] | None = None,
    ) -> "Attention":
        """Let some heads see only the keys inside a pattern, or those of a selection.

        Args:
            pattern: a selection was made for all heads of this attention.
            heads: query heads; all if left out.
            rows: the queries that it is about; all if left out.
        """
        index = as_indices(heads, self.n_heads, "head").tolist()
        restriction = Restriction.of(pattern, index, self.n_heads, self.q.device, rows)
        return dataclasses.replace(self, known_lse=None, edits=(*self.edits, restriction))

    def some_heads(self, heads: Any) -> "Attention":
        """Some query heads alone, with the KV heads that they read.

        Args:
            heads: their indices, ascending, as many of each KV head that is read.

        Raises:
            HeadscopeError: there are none, or they are others than that.
        """
        return subset.some_heads(self, heads)

    def head(self, head: int) -> "Attention":
        """One query head alone, with its kv_head."""
        return subset.some_heads(self, [head])

    def batch_row(self, row: int) -> "Attention":
        """One sequence of the batch alone."""
        return subset.batch_row(self, row)

    # ---- answers ---------------------------------------------------------------------------

    def tiles(self, queries: Any = None) -> Iterator[Tile]:
        """The pattern, a few whole rows at a time; every other answer is built on this.

        Args:
            queries: indices of queries, in the order wanted; all of them if left out.
        """
        for rows, keys in blocks(self, queries):
            yield tile(self, rows, keys)

    def lse(self) -> Float[Tensor, "batch head query"]:
        """Log of each row's sum of exponentials, the learned sink included."""
        if self.known_lse is not None:
            return self.known_lse
        return lse(self)

    def rows(self, queries: Any) -> Float[Tensor, "batch head query key"]:
        """Whole rows of the pattern, for a few queries."""

        def whole(part: Tile) -> Tensor:
            return pad(part.probabilities, (part.keys.start, self.n_keys - part.keys.stop))

        return torch.cat(fold(self, whole, queries), dim=2)

    def at(
        self, queries: Any, keys: Any, invisible: Literal["refuse", "zero"] = "refuse"
    ) -> Float[Tensor, "batch head pair"]:
        """The pattern at single (query, key) pairs, in time and memory of the pairs alone.

        Args:
            queries, keys: indices of equal length, shared by the batch or of shape [batch, pair].
            invisible: what becomes of a pair whose query cannot see its key.

        Raises:
            HeadscopeError: an index is negative or too large, or an invisible pair is refused.
        """
        if isinstance(queries, Tensor) and queries.ndim == 2:
            each = [
                self.batch_row(b).at(queries[b], keys[b], invisible) for b in range(len(queries))
            ]
            return torch.cat(each)
        query = as_indices(queries, self.n_queries, "query").to(self.q.device)
        key = as_indices(keys, self.n_keys, "key").to(self.q.device)
        if query.shape != key.shape:
            raise HeadscopeError(
                f"at() takes pairs: {len(query)} queries and {len(key)} keys do not pair up."
            )
        if invisible == "refuse":
            hidden = ~self.visible_at(query, key).flatten(0, 1).all(0)
            if bool(hidden.any()):
                bad = int(hidden.nonzero()[0])
                raise HeadscopeError(
                    f"Layer {self.layer}: query {int(query[bad])} cannot see key {int(key[bad])}; "
                    "ask only for pairs that attention.visible() allows."
                )
        lse, parts = finite(self.lse()), []
        step = max(1, budget(self) // max(1, len(self.q) * self.n_heads * self.q.shape[3]))
        for some in torch.arange(len(query)).split(step):
            i, j = query[some], key[some]
            q = rearrange(self.q[:, :, i], "b (k g) p d -> b k g p d", g=self.group)
            products = (wide(q) * wide(self.k[:, :, j])[:, :, None]).sum(-1).flatten(1, 2)
            parts.append(torch.exp(final_logits(self, products, i, j) - lse[:, :, i]))
        return torch.cat(parts, dim=2)

    def mass(self, region: Keys, queries: Any = None) -> Float[Tensor, "batch head query"]:
        """Probability inside a region, computed inside that region only.

        Args:
            region: a `Pattern`, or a set of keys as in `with_bias`.
            queries: indices of queries; all of them if left out.
        """
        return mass(self, region, queries)

    def mass_on_sets(
        self,
        queries: Int[Tensor, "set row"],
        keys: Int[Tensor, "set *kind key"],
        behind: int | Sequence[int] = 0,
    ) -> Float[Tensor, "batch head *kind set row"]:
        """Probability that queries give to small sets of keys, each set having queries of its own.

        Time and memory are those of the pairs within the sets: all copies of every token of a
        text, for instance.

        Args:
            queries, keys: indices, padded with -1; sets are shared by the batch. Keys may be of
                several kinds, each with a mass of its own.
            behind: only keys at least this many tokens before the query count; one number, or one
                for each kind.
        """
        return mass_on_sets(self, queries, keys, behind)

    def row_stats(
        self,
        regions: Mapping[str, Keys] | None = None,
        clip: int | None = None,
        queries: Any = None,
    ) -> RowStats:
        """Entropy, distances, the top key and the mass of named regions, in one pass.

        Args:
            regions: named regions, each a `Pattern` or a set of keys.
            clip: the distance, in tokens, at which `clipped_distance` is cut; none if left out.
            queries: indices of queries; all of them if left out.
        """
        return row_stats(self, dict(regions or {}), clip, queries)

    def sweep(self, clip: int = 128) -> Sweep:
        """Entropy, distances and what every key receives, in one pass over all rows.

        Args:
            clip: the distance, in tokens, at which `clipped_distance` is cut.
        """
        return sweep(self, clip)

    def column_means(
        self, denominator: Literal["visible", "queries"] = "visible"
    ) -> Float[Tensor, "batch head key"]:
        """Mean attention that each key receives.

        Args:
            denominator: "visible" divides by the number of queries that may see the key (Gu et
                al. 2024, arXiv 2410.10781; ACT, arXiv 2406.15765), "queries" by the number of
                all queries that are not padding.
        """
        return column_means(self, denominator)

    def block_map(
        self, size: int, reduce: Literal["sum", "mean", "max"] = "max"
    ) -> Float[Tensor, "batch head query_block key_block"]:
        """The pattern pooled over squares of `size` × `size` tokens.

        "mean" divides by a square's full area and hides a single stripe in it; "max" keeps it.
        """
        return block_map(self, size, reduce)

    def partial(self, keys: Keys) -> Part:
        """The attention of a subset of the keys alone: (z, lse), without the learned sink.

        `merge` joins such parts again; `with_sink` adds the learned sink at the end.
        """

        def part(rows: Tensor, reach: slice) -> tuple[Tensor, Tensor]:
            chosen = key_mask(self, keys, rows[:, None], columns(reach, rows)[None, :])
            logits = block_logits(self, rows, reach).masked_fill(~chosen, -torch.inf)
            lse = torch.logsumexp(logits, dim=-1)
            return weigh(self, torch.exp(logits - finite(lse)[..., None]), reach), lse

        parts = [recomputed(self, part, rows, reach) for rows, reach in blocks(self)]
        z, lse = (torch.cat(column, dim=2) for column in zip(*parts, strict=True))
        return z, lse

    def z(self) -> Float[Tensor, "batch head query dv"]:
        """The layer's output per head, before W_O: the definition that engines are held to."""
        return self.z_and_lse()[0]

    def z_and_lse(self) -> Part:
        """The layer's output per head and each row's log-sum-exp, learned sink included."""

        def both(part: Tile) -> tuple[Tensor, Tensor]:
            return weigh(self, part.probabilities, part.keys), part.lse

        z, lse = (torch.cat(column, dim=2) for column in zip(*fold(self, both), strict=True))
        return z, lse

    def dense(self) -> Float[Tensor, "batch head query key"]:
        """The whole pattern, for small inputs; refuses where it would not be small."""
        size = self.q.shape[0] * self.n_heads * self.n_queries * self.n_keys
        if size > _DENSE_LIMIT:
            raise HeadscopeError(
                f"Layer {self.layer}: the whole pattern of {self.n_heads} heads over "
                f"{self.n_queries} × {self.n_keys} tokens would take {size * 4 / 2**30:.0f} GiB; "
                "use rows(), at(), row_stats() or block_map(), or one head(h)."
            )
        return self.rows(None)
