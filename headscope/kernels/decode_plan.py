"""What a decode step reads: where each KV head's keys lie, and which of them its query heads see.

A plan holds addresses and rules on the device and no length, so that a CUDA graph that was captured
with it can be replayed while its sequences grow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.kernels.choice import why_not_these

ALL = 2**31 - 1
See = tuple[int, int]  # (sink, window) in tokens of a query head; (0, ALL) for every key
_GROUP = 64
_STEP = 2**24


@dataclass(frozen=True, eq=False)
class KeyStore:
    """Keys and values of some KV heads, as they lie in memory.

    Attributes:
        k, v: with room for `slot` tokens; any strides, the last of which is 1.
        kv_heads: the KV heads of the layer that they belong to, in order.
        ring: (sink, window) in tokens where position p stands in slot p if p < sink, else in
            sink + (p - sink) % window; None where position p stands in slot p.
    """

    k: Float[Tensor, "batch some_kv_head slot d"]
    v: Float[Tensor, "batch some_kv_head slot dv"]
    kv_heads: Sequence[int]
    ring: See | None = None


@dataclass(frozen=True, eq=False)
class DecodePlan:
    """What one launch over all of a layer's stores needs to know. Lengths are given to the launch.

    Attributes:
        stores: kept alive here, since the tables hold their addresses.
        places: for each KV head the address, the strides of a sequence and of a token (elements),
            of keys and of values, and the slots that there is room for.
        reads: for each KV head the (sink, window) of its ring, those of what has to be read, and
            whether some of that is hidden from one of its query heads.
        sees: (sink, window) of each query head.
        most: keys of each KV head that have to be read when its store is full.
    """

    stores: tuple[KeyStore, ...]
    places: Int[Tensor, "kv_head 7"]
    reads: Int[Tensor, "kv_head 5"]
    sees: Int[Tensor, "head 2"]
    most: tuple[int, ...]

    @classmethod
    def of(cls, stores: Sequence[KeyStore], sees: Sequence[See]) -> "DecodePlan":
        """
        Args:
            stores: of all KV heads of a layer, in any order.
            sees: (sink, window) of each query head: it sees the key at position p if p < sink or
                query - p < window.

        Raises:
            HeadscopeError: they do not make up a layer, or lie in memory as no kernel reads it.
        """
        if reason := why_not_stores(stores, len(sees)):
            raise HeadscopeError(f"This decode step cannot run on Triton: {reason}.")
        return cls.of_checked(stores, sees)

    @classmethod
    def of_checked(cls, stores: Sequence[KeyStore], sees: Sequence[See]) -> "DecodePlan":
        """The same for stores of which `why_not_stores` had nothing to say."""
        places: dict[int, tuple[int, ...]] = {}
        rings: dict[int, See | None] = {}
        for store in stores:
            k, v, size, room = store.k, store.v, store.k.element_size(), store.k.shape[2]
            (k_batch, k_head, k_slot, _), (v_batch, v_head, v_slot, _) = k.stride(), v.stride()
            k_at, v_at = k.data_ptr(), v.data_ptr()
            for kv in store.kv_heads:
                places[kv] = (k_at, k_batch, k_slot, v_at, v_batch, v_slot, room)
                rings[kv] = store.ring
                k_at, v_at = k_at + k_head * size, v_at + v_head * size
        n_kv, device = len(places), stores[0].k.device
        reads, heads, needs = _rules(tuple(rings[kv] for kv in range(n_kv)), tuple(sees), device)
        most = tuple(min(places[kv][-1], needs[kv]) for kv in range(n_kv))
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        table = _table(tuple(places[kv] for kv in range(n_kv)), device, stream)
        return cls(tuple(stores), table, reads, heads, most)

    @property
    def batch(self) -> int:
        return self.stores[0].k.shape[0]


@lru_cache(maxsize=1024)
def _table(places: tuple[tuple[int, ...], ...], device: torch.device, stream: int) -> Tensor:
    """`places` of a plan; the same at every step where rings are full, which do not move.

    Each stream has its own, since none waits for the copy or the end of another's.
    """
    del stream
    return torch.tensor(places, dtype=torch.int64).to(device, non_blocking=True)


@lru_cache(maxsize=4096)
def _rules(
    rings: tuple[See | None, ...], sees: tuple[See, ...], device: torch.device
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """`reads` and `sees` of a plan, and how many keys of each KV head are read at most.

    The same at every step, and in most layers.
    """
    group = len(sees) // len(rings)
    reads = []
    for kv, ring in enumerate(rings):
        mine = sees[kv * group : (kv + 1) * group]
        # A ring is read as it stands: its slots are in no order that a range could cut.
        most = ring or (max(s for s, _ in mine), max(w for _, w in mine))
        hides = any(w < most[1] or (s < most[0] and w < ALL) for s, w in mine)
        reads.append([*(ring or (ALL, ALL)), *((ALL, ALL) if ring else most), int(hides)])
    tables = (torch.tensor(rows, dtype=torch.int32) for rows in (reads, sees))
    first, second = (table.to(device, non_blocking=True) for table in tables)
    return first, second, tuple(sink + window for _, _, sink, window, _ in reads)


def why_not_stores(stores: Sequence[KeyStore], n_heads: int, q: Tensor | None = None) -> str | None:
    """What keeps the decode kernel from reading stores, as a clause; None if nothing does.

    Args:
        q: the queries that will be asked, [batch, head, 1, d], if they are there.
    """
    if not stores:
        return "there are no keys"
    if reason := why_not_these(*(x for one in stores for x in (one.k, one.v))):
        return reason
    if q is not None and (reason := why_not_query(q, stores[0])):
        return reason
    named = sorted(kv for store in stores for kv in store.kv_heads)
    if named != list(range(len(named))) or n_heads % len(named):
        return f"{n_heads} query heads cannot read the KV heads {named}"
    if n_heads // len(named) > _GROUP:
        return f"it takes up to {_GROUP} query heads on a KV head, and here are {n_heads}"
    batch = stores[0].k.shape[0]
    for store in stores:
        shape = (batch, len(store.kv_heads), *store.k.shape[2:])
        if store.k.shape != shape or store.v.shape != shape:
            return f"keys {tuple(store.k.shape)} and values {tuple(store.v.shape)} do not fit"
        if store.ring is not None and (store.ring[0] < 0 or store.ring[1] < 1):
            return f"a ring of sink {store.ring[0]} and window {store.ring[1]} holds nothing"
        for x in (store.k, store.v):
            if reason := _why_not_laid_out(x):
                return reason
    return None


def _why_not_laid_out(x: Tensor) -> str | None:
    """The same of how keys or values lie in memory, whose widths are multiples of 8."""
    odd = False
    if not x.is_contiguous():  # which most are, and then nothing has to be looked at
        if x.shape[3] > 1 and x.stride(3) != 1:
            return "the numbers of a key do not lie side by side"
        odd = any(x.stride(i) % 8 for i in range(3) if x.shape[i] > 1)
    if odd or x.data_ptr() % 16:
        return "keys do not begin at multiples of 16 bytes"
    return None if 0 <= x.stride(2) < _STEP else "keys lie too far apart"


def why_not_query(q: Tensor, store: KeyStore) -> str | None:
    """The same of queries alone, where stores were looked at before."""
    if reason := why_not_these(q, store.k):
        return reason
    return None if q.stride(-1) == 1 else "the numbers of a query do not lie side by side"
