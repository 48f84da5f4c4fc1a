"""A KV cache whose heads hold what their rules may still see: sinks and a window, or everything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from headscope.backends.discover import Found
from headscope.errors import HeadscopeError
from headscope.head_layer import HeadLayer
from headscope.sparsity.profile import SparseProfile


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
        if self._config is config:
            return
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
        usual = DynamicCache(config=config).layers
        for layer in model.layers:
            # Layers that share keys with others have a layer without any, or none.
            kind = type(usual[layer]) if layer < len(usual) else None
            if kind not in (DynamicLayer, DynamicSlidingWindowLayer):
                given = "none" if kind is None else f"a {kind.__name__}"
                raise HeadscopeError(
                    f"Layer {layer} keeps something else than keys and values of its own "
                    f"(transformers gives it {given}); use a DynamicCache."
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
