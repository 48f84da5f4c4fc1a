"""One layer of a `HeadCache`: what its heads hold, and the attention over that."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.cache import SeenLayer
from headscope.engines import Attended, dense
from headscope.errors import HeadscopeError
from headscope.geometry import Geometry
from headscope.kernels.decode_plan import KeyStore
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.streaming import Streaming
from headscope.ring import Everything, Joined, Need, Ring, Store
from headscope.sparsity.decoding import one_launch
from headscope.sparsity.engine import SparseEngine
from headscope.sparsity.profile import SparseProfile
from headscope.stack import Chain


class HeadLayer(SeenLayer):
    """One layer of a `HeadCache`.

    `update` cannot know positions, so that it only takes new keys in; `attend` stores them.
    """

    def __init__(self, needs: Sequence[Need], group: int) -> None:
        """
        Args:
            needs: what each KV head holds.
            group: query heads that share a KV head.
        """
        super().__init__()
        self.needs, self.group = list(needs), group
        self._new: tuple[Tensor, Tensor] | None = None
        self._checked: SparseProfile | None = None  # the last one found to see what is held
        self._bare = frozenset[Need]()  # what is held where its rules see all of that
        self.stores: list[Store] = self._empty()

    def _empty(self) -> list[Store]:
        alike: dict[Need, list[int]] = defaultdict(list)
        for kv_head, need in enumerate(self.needs):
            alike[need].append(kv_head)
        return [
            Everything(kv_heads, self.group) if need is None else Ring(kv_heads, self.group, *need)
            for need, kv_heads in alike.items()
        ]

    # ---- as transformers knows it ----------------------------------------------------------

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self._new is not None:
            raise HeadscopeError(
                "The last tokens never came to headscope's attention: use a HeadCache on a model "
                "that headscope runs (headscope.load or use_profile), and a new one after a pass "
                "that was interrupted."
            )
        self.is_initialized = True
        self._new = key_states, value_states
        self.seen += key_states.shape[-2]
        return self._new

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def reset(self) -> None:
        self.seen, self.is_initialized, self._new = 0, False, None
        self.stores = self._empty()

    def activate_past_recording(self) -> None:
        self.crop(0)  # a draft that is taken back later is refused before it is made

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        for store in self.stores:
            store.rows(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        for store in self.stores:
            store.rows(lambda x: x.repeat_interleave(repeats, dim=0))

    # ---- as headscope runs it --------------------------------------------------------------

    def attend(self, attention: Attention, geometry: Geometry, chain: Chain) -> Attended:
        """Store what `update` took in, and attend to it and to what was held before.

        Args:
            attention: of the new tokens among themselves.
            geometry: of all tokens that were ever seen.
            chain: what stands around the attention of this pass.
        """
        k, v = self._take(attention, geometry)
        before = self.seen - attention.n_queries
        self._check_engine(attention, chain, before)
        new, slots = attention.query_positions.to(k.device), attention.slots
        joined = [store.join(k, v, new, slots, self.seen) for store in self.stores]
        if before == 0:
            return chain(attention)
        unseen = not chain.entered and not chain.observers and geometry.mask is None
        if unseen and (done := self._at_once(attention, geometry, joined, chain)) is not None:
            return done
        parts = [
            self._part(attention, geometry, *one) for one in zip(self.stores, joined, strict=True)
        ]
        if len(parts) == 1 and isinstance(self.stores[0], Everything):
            return chain(replace(parts[0], mask=geometry.mask))
        if not unseen:
            return chain(self._by_slots(attention, geometry, parts))
        return self._apart(attention, geometry, parts, chain)

    def _take(self, attention: Attention, geometry: Geometry) -> tuple[Tensor, Tensor]:
        where = f"Layer {attention.layer}"
        if self._new is None:
            raise HeadscopeError(
                f"{where} has no keys and values of its own to keep; use a DynamicCache."
            )
        given, self._new = self._new, None
        if geometry.n_keys != self.seen:
            raise HeadscopeError(
                f"{where} is to see {geometry.n_keys} tokens, and its HeadCache "
                f"has seen {self.seen}: a pass was interrupted, or the attention mask is of the "
                "caller's own. Begin again with a new cache, and a mask of [batch, token]."
            )
        for mine, here in zip(given, (attention.k, attention.v), strict=True):
            if mine.dtype == here.dtype and mine.data_ptr() != here.data_ptr():
                raise HeadscopeError(
                    f"The keys or values of {where.lower()} were changed behind the HeadCache; "
                    "change them with attention.with_k and with_v in a middleware."
                )
        return given

    def _check_engine(self, attention: Attention, chain: Chain, before: int) -> None:
        """Refuse a profile in force whose rules see keys that are not held."""
        engine = chain.engine
        if not isinstance(engine, SparseEngine):
            return
        if self._checked is not engine.profile:
            if not all(map(_covers, self.needs, engine.profile.held(attention.layer))):
                raise HeadscopeError(
                    f"In layer {attention.layer} the profile in force sees keys that this "
                    "HeadCache, made from another profile, does not hold; make both of one."
                )
            rules = engine.profile.of_layer(attention.layer)
            hiding = {
                store.need
                for store in self.stores
                if {rules[head] for head in store.heads} != {_seeing(store.need)}
            }
            self._checked, self._bare = engine.profile, frozenset(self.needs) - hiding
        if engine.part == "all":
            return
        if any(need is not None and before > sum(need) for need in self.needs):
            assert attention.run is not None  # a model's attention always has one
            at = attention.query_positions
            if bool((~attention.run.rows_in(engine.part, at) & (at >= 0)).any()):
                raise HeadscopeError(
                    f"SparseAttention with part={engine.part!r} lets these tokens see everything, "
                    "and the HeadCache no longer holds it: use part='all', or part='decode' and "
                    "the prompt in one pass, or a DynamicCache."
                )

    def _part(
        self, attention: Attention, geometry: Geometry, store: Store, joined: Joined
    ) -> Attention:
        """The attention of one store's heads over what it holds."""
        positions, sinks = joined.positions, attention.sink_logits
        return replace(
            attention,
            q=attention.q[:, store.head_index],
            # As the pass wants them: autocast narrows keys after a cache took them.
            k=joined.k.to(attention.k.dtype),
            v=joined.v.to(attention.v.dtype),
            sink_logits=None if sinks is None else sinks[store.head_index],
            key_positions=self._slots(attention, geometry) if positions is None else positions,
            slots=geometry.slots if positions is None else None,
            mask=None,
        )

    @staticmethod
    def _slots(attention: Attention, geometry: Geometry) -> Int[Tensor, "batch key"]:
        """The positions of all tokens that were ever seen, on the layer's device."""
        return geometry.positions()[1].to(attention.k.device)

    def _at_once(
        self, attention: Attention, geometry: Geometry, joined: list[Joined], chain: Chain
    ) -> Attended | None:
        """One token per sequence over all stores in one launch; None where that is not possible."""
        engine = chain.engine
        if attention.n_queries != 1 or geometry.padding is not None:
            return None
        if isinstance(engine, SparseEngine) and engine.part == "all":
            rules = engine.profile.of_layer(attention.layer)
        elif engine is dense:
            rules = [Full()] * attention.n_heads
        else:
            return None
        dtype = attention.k.dtype
        stores = [
            KeyStore(held.k.to(dtype), held.v.to(dtype), store.kv_heads, store.need)
            for store, held in zip(self.stores, joined, strict=True)
        ]
        lengths = geometry.lengths(attention.q.device)
        done = one_launch(attention, stores, rules, self.seen, lengths=lengths)
        return None if done is None else Attended(done[0], attention)

    def _apart(
        self, attention: Attention, geometry: Geometry, parts: list[Attention], chain: Chain
    ) -> Attended:
        """Every store's heads over its own keys, none of which is copied; nobody looks."""
        z = attention.v.new_empty(*attention.q.shape[:3], attention.v.shape[3])
        engine = chain.engine
        step = attention.n_queries == 1 and geometry.padding is None
        for store, part in zip(self.stores, parts, strict=True):
            if isinstance(engine, SparseEngine) and not (step and store.need in self._bare):
                done = engine.on_heads(part, store.heads)
            elif isinstance(engine, SparseEngine) or engine is dense:
                if step and part.only_causal:
                    # Seen as a whole, in whatever order it stands.
                    part = replace(part, slots=Slots(part.n_keys - 1, 0, padded=False))
                done = dense(part)
            else:
                done = engine(part)
            z[:, store.head_index] = done.z
        return Attended(z, attention)

    def _by_slots(
        self, attention: Attention, geometry: Geometry, parts: list[Attention]
    ) -> Attention:
        """All heads over one row of slots: the token of index j is the same one in every pass."""
        every, slots, cache = self._slots(attention, geometry), geometry.slots, attention.cache
        size = (*attention.k.shape[:2], geometry.n_keys + 1)  # the last is for what is no token
        k = attention.k.new_zeros(*size, attention.k.shape[3])
        v = attention.v.new_zeros(*size, attention.v.shape[3])
        positions = every.new_full(size, -1)
        first = (every == 0).int().argmax(1, keepdim=True)
        for store, part in zip(self.stores, parts, strict=True):
            held = part.key_positions
            at = torch.where(held >= 0, held + first, geometry.n_keys)[:, None]
            for whole, own in ((k, part.k), (v, part.v), (positions, held[:, None])):
                index = at.reshape(*at.shape, *(1,) * (own.ndim - 3))
                index = index.expand(-1, len(store.kv_heads), -1, *own.shape[3:])
                some = whole[:, store.kv_index].scatter(2, index, own.expand(index.shape))
                whole[:, store.kv_index] = some
        positions = positions[..., :-1]
        return replace(
            attention,
            k=k[:, :, :-1],
            v=v[:, :, :-1],
            key_positions=positions,
            # Holes lie between the slots, as they do in a padded batch.
            slots=None if slots is None else replace(slots, padded=True),
            mask=geometry.mask,
            cache=None if cache is None else replace(cache, positions=positions),
        )


def _covers(mine: Need, theirs: Need) -> bool:
    """Whether a KV head that holds one thing holds all of the other."""
    if mine is None or theirs is None:
        return mine is None
    return mine[0] >= theirs[0] and mine[1] >= theirs[1]


def _seeing(need: Need) -> Pattern:
    """The rule that hides nothing of what is held."""
    return Full() if need is None else Streaming(*need)
