"""A KV cache whose heads hold what their rules may still see: sinks and a window, or everything."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from headscope.attention import Attention
from headscope.backends.discover import Found
from headscope.cache import SeenLayer
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.ring import Everything, Joined, Ring, Store
from headscope.sparsity.engine import SparseEngine
from headscope.sparsity.profile import SparseProfile
from headscope.stack import Chain

Need = tuple[int, int] | None  # (sink, window) in tokens, or None for every key


class HeadCache(Cache):
    """A KV cache in which every KV head holds what a profile's rules may still see of it.

    A KV head whose query heads all have bounded rules holds its first `sink` and last `window`
    keys, in a ring that is allocated as it fills; every other one holds all keys. It works with
    `model.generate(..., past_key_values=HeadCache(profile))` and `model(ids, cache=cache)`, in
    chunks of any size, for batches padded on the left and for beams, on the hf and nnsight
    backends, and on a transformers model that `use_profile` was given.

    With `SparseAttention` of the same profile in force, a prompt, its chunks and every step say
    what a full forward pass says. By itself the cache hides nothing from the tokens that are read
    together: a prompt read in one pass is read in full, and later tokens see what is held, as in
    DuoAttention (Xiao et al. 2024, arXiv 2410.10819, section 3.3).

    Where a middleware or an observer looks at a pass, each layer's keys are laid out by the slots
    of their tokens for as long as it looks, -1 in `key_positions` where a head holds none.

    Args:
        profile: a `SparseProfile`, or the path of one.

    Raises:
        HeadscopeError: at first use, that the model has another shape than the profile or a layer
            that keeps more than keys and values, or runs without headscope; later, that tokens
            are to be taken back, or that somebody wants to see what is no longer held.
    """

    def __init__(self, profile: SparseProfile | str | Path) -> None:
        self.profile = SparseProfile.given(profile)
        model, self._config = self.profile.model, None
        layers: list[Any] = [DynamicLayer() for _ in range(model.layers[-1] + 1)]
        for layer in model.layers:
            layers[layer] = HeadLayer(self.profile.held(layer), model.group)
        super().__init__(layers=layers)

    def fit(self, config: PreTrainedConfig, found: Sequence[Found]) -> None:
        """Refuse a model that the profile was not made for, and learn what its other layers keep.

        Args:
            config: of the model that is about to run.
            found: its softmax-attention layers.

        Raises:
            HeadscopeError: it has another shape, or a layer keeps more than keys and values.
        """
        model = self.profile.model
        for one in found:
            here = (one.n_heads, one.n_kv_heads, one.d_head)
            if here != (model.n_heads, model.n_kv_heads, model.d_head):
                raise HeadscopeError(
                    f"The HeadCache is for {model.name}, {model.n_heads} query heads on "
                    f"{model.n_kv_heads} KV heads of {model.d_head}; layer {one.layer} of this "
                    f"model has {here[0]} on {here[1]} of {here[2]}. Plan a profile for it."
                )
        if tuple(one.layer for one in found) != model.layers:
            raise HeadscopeError(
                f"The HeadCache is for {model.name} with {len(model.layers)} attention layers, and "
                f"this model has {len(found)} or other ones. Plan a profile for it."
            )
        if self._config is config:
            return
        usual = DynamicCache(config=config).layers
        for layer in model.layers:
            if type(usual[layer]) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise HeadscopeError(
                    f"Layer {layer} keeps a {type(usual[layer]).__name__}, more than keys and "
                    "values of its own; a HeadCache cannot. Use a DynamicCache."
                )
        mine = {layer: self.layers[layer] for layer in model.layers}
        self.layers[:] = [mine.get(layer, kept) for layer, kept in enumerate(usual)]
        self._config = config

    def kv_bytes(self) -> int:
        """Bytes that are allocated for keys and values now, over all layers and the batch.

        Equal to `profile.kv_bytes(n, itemsize, batch)` after n tokens without padding.
        """
        layers = (layer for layer in self.layers if isinstance(layer, HeadLayer))
        return sum(store.n_bytes for layer in layers for store in layer.stores)

    def __repr__(self) -> str:
        return f"HeadCache({self.get_seq_length()} tokens seen, {self.kv_bytes():,} bytes held)"


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
        self._covers: SparseProfile | None = None  # the last one found to see no more than is held
        self.stores: list[Store] = self._empty()

    def _empty(self) -> list[Store]:
        alike: dict[Need, list[int]] = defaultdict(list)
        for kv_head, need in enumerate(self.needs):
            alike[need].append(kv_head)
        return [
            Everything(kv_heads) if need is None else Ring(kv_heads, *need)
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

    def attend(self, attention: Attention, chain: Chain) -> Attended:
        """Store what `update` took in, and attend to it and to what was held before.

        Args:
            attention: of the new keys alone, with positions and slots of all keys ever seen.
            chain: what stands around the attention of this pass.
        """
        k, v = self._take(attention)
        before = self.seen - attention.n_queries
        self._check_engine(attention, chain, before)
        new, slots = attention.query_positions.to(k.device), attention.slots
        joined = [store.join(k, v, new, slots, self.seen) for store in self.stores]
        if before == 0:
            return chain(attention)
        if len(joined) == 1 and isinstance(self.stores[0], Everything):
            return chain(replace(attention, k=self._like(joined[0].k, attention.k),
                                 v=self._like(joined[0].v, attention.v)))  # fmt: skip
        if chain.entered or chain.observers or attention.mask is not None:
            return chain(self._by_slots(attention, joined))
        return self._apart(attention, joined, chain)

    def _take(self, attention: Attention) -> tuple[Tensor, Tensor]:
        where = f"Layer {attention.layer}"
        if self._new is None:
            raise HeadscopeError(
                f"{where} has no keys and values of its own to keep; use a DynamicCache."
            )
        given, self._new = self._new, None
        if attention.key_positions.shape[1] != self.seen:
            raise HeadscopeError(
                f"{where} is to see {attention.key_positions.shape[1]} tokens, and its HeadCache "
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
        if self._covers is not engine.profile:
            held = engine.profile.held(attention.layer)
            if not all(map(_covers, self.needs, held)):
                raise HeadscopeError(
                    f"In layer {attention.layer} the profile in force sees keys that this "
                    "HeadCache, made from another profile, does not hold; make both of one."
                )
            self._covers = engine.profile
        dropped = any(need is not None and before > sum(need) for need in self.needs)
        if engine.part != "all" and dropped:
            assert attention.run is not None  # a model's attention always has one
            at = attention.query_positions
            if bool((~attention.run.rows_in(engine.part, at) & (at >= 0)).any()):
                raise HeadscopeError(
                    f"SparseAttention with part={engine.part!r} lets these tokens see everything, "
                    "and the HeadCache no longer holds it: use part='all', or part='decode' and "
                    "the prompt in one pass, or a DynamicCache."
                )

    def _apart(self, attention: Attention, joined: list[Joined], chain: Chain) -> Attended:
        """Each store's heads over its own keys: nothing is copied, and nobody looks."""
        z = attention.v.new_empty(*attention.q.shape[:3], attention.v.shape[3])
        engine = chain.engine
        for store, held in zip(self.stores, joined, strict=True):
            heads = [kv * self.group + one for kv in store.kv_heads for one in range(self.group)]
            part = replace(
                attention.some_heads(heads),
                k=self._like(held.k, attention.k),
                v=self._like(held.v, attention.v),
            )
            if held.positions is not None:
                part = replace(part, key_positions=held.positions, slots=None)
            one = engine.on_heads(part, heads) if isinstance(engine, SparseEngine) else engine(part)
            z[:, torch.tensor(heads, device=z.device)] = one.z
        return Attended(z, attention)

    def _by_slots(self, attention: Attention, joined: list[Joined]) -> Attention:
        """All heads over one row of slots: the token of index j is the same one in every pass."""
        batch, n_kv, _, width = attention.k.shape
        every, slots = attention.key_positions, attention.slots
        size = (batch, n_kv, every.shape[1] + 1)  # the last is for what is no token
        k = attention.k.new_zeros(*size, width)
        v = attention.v.new_zeros(*size, attention.v.shape[3])
        positions = every.new_full(size, -1)
        first = (every == 0).int().argmax(1, keepdim=True)
        for store, held in zip(self.stores, joined, strict=True):
            at = torch.arange(every.shape[1], device=every.device).expand(batch, -1)
            if held.positions is not None:
                at = torch.where(held.positions >= 0, held.positions + first, size[2] - 1)
            for target, source in ((k, held.k), (v, held.v)):
                index = at[:, None, :, None].expand(source.shape)
                target[:, store.kv_heads] = target[:, store.kv_heads].scatter(
                    2, index, self._like(source, target)
                )
            own = every if held.positions is None else held.positions
            index = at[:, None].expand(-1, len(store.kv_heads), -1)
            positions[:, store.kv_heads] = positions[:, store.kv_heads].scatter(
                2, index, own[:, None].expand(index.shape)
            )
        positions = positions[..., :-1]
        cache = attention.cache
        return replace(
            attention,
            k=k[:, :, :-1],
            v=v[:, :, :-1],
            key_positions=positions,
            # Holes lie between the slots, as they do in a padded batch.
            slots=None if slots is None else replace(slots, padded=True),
            cache=None if cache is None else replace(cache, positions=positions),
        )

    @staticmethod
    def _like(held: Tensor, new: Tensor) -> Tensor:
        """What is held as the pass wants it: autocast narrows keys after the cache took them."""
        return held.to(new.dtype)


def _covers(mine: Need, theirs: Need) -> bool:
    """Whether a KV head that holds one thing holds all of the other."""
    if mine is None or theirs is None:
        return mine is None
    return mine[0] >= theirs[0] and mine[1] >= theirs[1]
