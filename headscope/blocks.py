"""How the answers of an attention are computed: blocks of whole rows, one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from headscope.edits import as_indices
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.attention import Attention

# Elements of one block of logits over all heads: 16 MiB of float32 stay near a CPU's cache, a GPU
# wants launches that are worth their start.
_BLOCK = {"cpu": 2**22, "cuda": 2**26}
_NEAR = {"cpu": 128, "cuda": 1024}


@dataclass(frozen=True)
class Slots:
    """Where the queries and keys of a batch stand in their sequence, as plain integers.

    They let blocks be cut without asking the device. Query i sits in slot `first_query + i`, key j
    in slot `first_key + j`; a slot is a position only where the batch is not `padded`.
    """

    first_query: int
    first_key: int
    padded: bool


@dataclass(frozen=True, eq=False)
class Tile:
    """Whole rows of one layer's pattern, for a few queries and every key they can see."""

    queries: Int[Tensor, " query"]  # indices into the queries of the attention
    keys: slice  # indices into its keys; nothing outside is visible to these queries
    logits: Float[Tensor, "batch head query key"]  # edits included, -inf where invisible
    lse: Float[Tensor, "batch head query"]  # the learned sink included
    probabilities: Float[Tensor, "batch head query key"]


def blocks(
    attention: "Attention", queries: Any = None, local: bool = False, n_keys: int | None = None
) -> Iterator[tuple[Tensor, slice]]:
    """Runs of query indices, each with the slice of keys that they may see.

    Args:
        queries: which queries, in which order; all if left out.
        local: only keys near the queries will be computed, so that runs are kept short.
        n_keys: how many keys will be computed at most; all if left out.
    """
    rows = as_indices(queries, attention.n_queries, "query")
    # A row's query is copied too, which is the larger of the two where keys are few.
    largest = max(attention.q.shape[3], attention.n_keys if n_keys is None else n_keys)
    per_row = attention.q.shape[0] * attention.n_heads * largest
    step = max(1, budget(attention) // max(per_row, 1))
    far = reach(attention)
    if attention.slots is not None and (far is not None or local):
        # A block as tall as the window is long computes at most twice what the window holds.
        step = min(step, max(near(attention), far or 0))
    for start in range(0, max(len(rows), 1), step):  # no rows at all have an answer too
        block = rows[start : start + step]
        yield block.to(attention.q.device), _visible_slice(attention, block)


def reach(attention: "Attention") -> int | None:
    """How many tokens a row sees at most, its own among them; None where it sees all before it."""
    return attention.chunk if attention.window is None else attention.window


def near(attention: "Attention") -> int:
    """How many rows a block should have whose keys are near by, or cut into pieces: few, so that
    little is computed beyond the diagonal, yet worth the calls."""
    return _NEAR.get(attention.q.device.type, _NEAR["cpu"])


def query_span(attention: "Attention") -> tuple[int, int]:
    """The positions of the first and the last query; the device is asked only where slots are not
    positions. Both are 0 where all is padding."""
    slots, query = attention.slots, attention.query_positions
    if slots is not None and not slots.padded:
        return slots.first_query, slots.first_query + attention.n_queries - 1
    last = max(int(query.max()), 0)
    return int(torch.where(query < 0, last, query).min()), last


def budget(attention: "Attention") -> int:
    """How many logits a block should hold, over all heads, on the attention's device."""
    return _BLOCK.get(attention.q.device.type, _BLOCK["cpu"])


def inside(
    attention: "Attention", pattern: Pattern | Selection, rows: Tensor, keys: slice
) -> list[slice]:
    """The parts of a slice of keys that a pattern can touch, where slots are positions."""
    slots = attention.slots
    if slots is None or slots.padded or len(rows) == 0:
        return [keys]
    first, last = int(rows.min()) + slots.first_query, int(rows.max()) + slots.first_query
    ranges = (
        slice(max(low - slots.first_key, keys.start), min(high - slots.first_key, keys.stop))
        for low, high in pattern.key_ranges(first, last)
    )
    return [part for part in ranges if part.start < part.stop]


def tile(attention: "Attention", rows: Tensor, keys: slice) -> Tile:
    """The pattern of some queries over the keys they can see."""
    logits = block_logits(attention, rows, keys)
    if attention.known_lse is not None:
        lse = attention.known_lse[:, :, rows].to(logits)
    else:
        lse = torch.logsumexp(logits, dim=-1)
        if attention.sink_logits is not None:
            lse = torch.logaddexp(lse, attention.sink_logits[:, None].to(lse))
    # Written over where it stands, as fetching memory costs as much as the work.
    return Tile(rows, keys, logits, lse, (logits - finite(lse)[..., None]).exp_())


def block_logits(
    attention: "Attention", rows: Tensor, keys: slice | Tensor
) -> Float[Tensor, "batch head query key"]:
    """Final logits of some queries over a slice of keys, or over keys by index."""
    q = rearrange(wide(attention.q[:, :, rows]), "b (k g) q d -> b k (g q) d", g=attention.group)
    product = torch.matmul(q, wide(attention.k[:, :, keys]).transpose(-1, -2))
    product = rearrange(product, "b k (g q) j -> b (k g) q j", g=attention.group)
    return final_logits(attention, product, rows[:, None], columns(keys, rows)[None, :])


def final_logits(attention: "Attention", products: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """From q·k, which is written over, to logits with edits, -inf where invisible.

    Queries and keys are index tensors that broadcast to the last axes.
    """
    logits = edited_logits(attention, products, queries, keys)
    return logits.masked_fill_(~attention.visible_at(queries, keys), -torch.inf)


def edited_logits(
    attention: "Attention", products: Tensor, queries: Tensor, keys: Tensor
) -> Tensor:
    """The same for all pairs, visible or not; the products are written over."""
    logits = products.mul_(attention.scale)
    if attention.softcap is not None:
        logits = torch.tanh(logits / attention.softcap) * attention.softcap
    for edit in attention.edits:
        logits = logits + edit.logits(attention, queries, keys).to(logits.dtype)
    return logits


def weigh(attention: "Attention", weights: Tensor, keys: slice) -> Tensor:
    """Values averaged with the given weights: [batch, head, query, dv] in the values' dtype."""
    grouped = rearrange(weights, "b (k g) q j -> b k (g q) j", g=attention.group)
    z = torch.matmul(grouped, wide(attention.v[:, :, keys]))
    return rearrange(z, "b k (g q) d -> b (k g) q d", g=attention.group).to(attention.v.dtype)


def fold(attention: "Attention", answer: Callable[[Tile], Any], queries: Any = None) -> list[Any]:
    """An answer per tile."""
    return [
        recomputed(attention, lambda r, k: answer(tile(attention, r, k)), rows, keys)
        for rows, keys in blocks(attention, queries)
    ]


def recomputed(attention: "Attention", answer: Callable[..., Any], *inputs: Any) -> Any:
    """Call a function whose intermediate values the backward pass computes again."""
    if not attention.needs_grad:
        return answer(*inputs)
    return checkpoint(answer, *inputs, use_reentrant=False, preserve_rng_state=False)


def columns(keys: slice | Tensor, like: Tensor) -> Int[Tensor, " key"]:
    """The indices of some keys, on the device of `like`."""
    if isinstance(keys, Tensor):
        return keys
    return torch.arange(keys.start, keys.stop, device=like.device)


def wide_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """Logits and sums are held in float32 at least: bfloat16 keeps three digits."""
    return x.to(wide_dtype(x))


def finite(lse: Tensor) -> Tensor:
    """A row that sees nothing has lse -inf; subtracting 0 instead leaves its weights at 0."""
    return lse.masked_fill(lse == -torch.inf, 0)


def _visible_slice(attention: "Attention", rows: Tensor) -> slice:
    slots = attention.slots
    if slots is None or len(rows) == 0:
        return slice(0, attention.n_keys)
    ahead = slots.first_query - slots.first_key
    stop = max(min(int(rows.max()) + ahead + 1, attention.n_keys), 0)
    far = reach(attention)
    start = 0 if far is None else int(rows.min()) + ahead - far + 1
    return slice(min(max(start, 0), stop), stop)
