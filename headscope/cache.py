"""One layer's share of a KV cache, as an `Attention` sees it."""

from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float, Int
from torch import LongTensor, Tensor
from transformers.cache_utils import Cache, DynamicLayer

from headscope.errors import HeadscopeError


class SeenLayer(DynamicLayer):
    """A cache layer that holds some of the keys it has seen, and cannot give others back.

    The length it reports is what it has *seen*: positions and masks go on counting from there.
    """

    is_croppable = False

    def __init__(self, seen: int = 0) -> None:
        super().__init__()
        self.seen = seen

    def get_seq_length(self) -> int:
        return self.seen

    def crop(self, tokens_to_remove: int) -> None:
        raise HeadscopeError(
            "Keys were evicted from this cache: the tokens of a rejected draft cannot be taken "
            "back exactly. Generate without an assistant or prompt lookup."
        )


class HeldLayer(SeenLayer):
    """A layer whose kv_heads hold as many keys each, other ones if need be."""

    def __init__(self, full: DynamicLayer, seen: int) -> None:
        super().__init__(seen)
        self.dtype, self.device, self.is_initialized = full.dtype, full.device, True
        self.keys, self.values = full.keys, full.values
        self.positions: Int[Tensor, "batch kv_head held"] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen += key_states.shape[-2]
        return super().update(key_states, value_states, *args, **kwargs)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        assert self.keys is not None
        held = self.keys.shape[-2]
        return held + query_length, self.seen - held

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(cast(LongTensor, beam_idx))
        self.batch_positions(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.batch_positions(indices)

    def batch_positions(self, index: Tensor) -> None:
        if self.positions is not None:
            self.positions = self.positions[index.to(self.positions.device)]


@dataclass(frozen=True, eq=False)
class LayerCache:
    """The keys and values that one layer keeps between forward passes."""

    cache: Cache
    layer: int
    n_kv_heads: int
    positions: Int[Tensor, "batch key"] | Int[Tensor, "batch kv_head key"]  # of what is held now

    @property
    def keys(self) -> Float[Tensor, "batch kv_head key d"]:
        return cast(DynamicLayer, self.cache.layers[self.layer]).keys  # pyright: ignore[reportReturnType]

    @property
    def values(self) -> Float[Tensor, "batch kv_head key dv"]:
        return cast(DynamicLayer, self.cache.layers[self.layer]).values  # pyright: ignore[reportReturnType]

    def keep(self, index: Int[Tensor, "batch kv_head kept"]) -> None:
        """Drop every key and value but the given ones, from the next forward pass on.

        Args:
            index: indices into the held keys, ascending, as many for every kv_head. To keep fewer
                in one head, repeat none: pad with keys that matter little.

        Raises:
            HeadscopeError: the cache is of a kind (static, sliding, quantised) that cannot.
        """
        layer = self.cache.layers[self.layer]
        if not isinstance(layer, HeldLayer):
            if type(layer) is not DynamicLayer:
                raise HeadscopeError(
                    f"Keys cannot be evicted from a {type(layer).__name__}; pass a plain "
                    "DynamicCache() as past_key_values."
                )
            layer = HeldLayer(layer, layer.get_seq_length())
            self.cache.layers[self.layer] = layer
        for name in ("keys", "values"):
            held = getattr(layer, name)
            wide = index[..., None].expand(*index.shape, held.shape[-1])
            setattr(layer, name, held.gather(2, wide))
        positions = self.positions
        if positions.ndim == 2:
            positions = positions[:, None].expand(-1, self.n_kv_heads, -1)
        layer.positions = positions.gather(2, index)
