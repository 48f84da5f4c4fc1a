"""Who may see whom, as transformers says it when it asks for a mask.

The mask function is the only place where the true offsets of queries and keys are known: the
number of keys less the number of queries is wrong for static caches and for sliding layers. So the
function registered here returns no mask but a small token; the attention function takes the
`Geometry` behind it, and no tensor of n × n is made.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import getclosurevars
from itertools import count
from typing import Any, cast
from weakref import WeakValueDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sdpa_mask

from headscope.blocks import Slots
from headscope.errors import HeadscopeError

_EXPLICIT_LIMIT = 2**28
_numbers = count(1)
_geometries: "WeakValueDictionary[int, Geometry]" = WeakValueDictionary()


@dataclass(eq=False)
class Geometry:
    """The offsets, padding and rule of one kind of layer in one forward pass."""

    batch: int
    n_queries: int
    n_keys: int
    first_query: int
    first_key: int
    window: int | None
    chunk: int | None
    padding: Bool[Tensor, "batch slot"] | None  # True where a token is real; None: everywhere
    mask: Bool[Tensor, " batch #head query key"] | None
    device: torch.device
    pass_: Any = None  # the forward pass it was made for, for recomputation in a backward pass
    _positions: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _lengths: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def slots(self) -> Slots | None:
        if self.mask is not None:
            return None
        return Slots(self.first_query, self.first_key, self.padding is not None)

    def positions(self) -> tuple[Int[Tensor, "batch query"], Int[Tensor, "batch key"]]:
        """Positions of queries and keys: 0 is the first real token, -1 is padding."""
        if self._positions is None:
            query = torch.arange(self.n_queries, device=self.device) + self.first_query
            key = torch.arange(self.n_keys, device=self.device) + self.first_key
            query, key = (x.expand(self.batch, -1) for x in (query, key))
            if self.padding is not None:
                start = self.padding.int().argmax(1, keepdim=True)
                query, key = (self._real(slots, start) for slots in (query, key))
            self._positions = query, key
        return self._positions

    def lengths(self, device: torch.device) -> Int[Tensor, " batch"]:
        """`n_keys` of each sequence in 32 bits, as kernels count: once for all layers there."""
        if device not in self._lengths:
            each = torch.full((self.batch,), self.n_keys, dtype=torch.int32, device=device)
            self._lengths[device] = each
        return self._lengths[device]

    def _real(self, slots: Int[Tensor, "batch n"], start: Int[Tensor, "batch 1"]) -> Tensor:
        assert self.padding is not None
        inside = (slots >= 0) & (slots < self.padding.shape[1])
        real = self.padding.gather(1, slots.clamp(0, self.padding.shape[1] - 1)) & inside
        return torch.where(real, slots - start, -1)


def geometry_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    device: Any = "cpu",
    **options: Any,
) -> Tensor:
    """The mask function registered with transformers: a token of one number, shape [1, 1, 1, 1].

    Four dimensions, because `generate` makes masks ahead for static caches and transformers hands
    a four-dimensional tensor on untouched.
    """
    padding = attention_mask
    if padding is not None and (padding.is_meta or bool(padding.all())):
        padding = None
    rule = _rule(mask_function)
    mask = None
    if rule is None:
        mask = _explicit(
            batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, padding, device,
            bool(options.get("use_vmap", False)),
        )  # fmt: skip
        rule = (None, None)
    # A static cache counts on its device, and hands over slots that it has not filled yet.
    first_query = int(q_offset)
    filled = min(kv_length, first_query + q_length - kv_offset)
    geometry = Geometry(
        batch_size, q_length, filled, first_query, kv_offset, *rule, padding,
        None if mask is None else mask[..., :filled], torch.device(device),
    )  # fmt: skip
    return token_of(geometry)


def token_of(geometry: Geometry) -> Tensor:
    """A tensor to carry a geometry through a model's layers."""
    number = next(_numbers)
    token = torch.full((1, 1, 1, 1), number, dtype=torch.int64, device=geometry.device)
    # The token keeps its geometry alive; a copy of it (made when layers live on several devices)
    # still has the number.
    token.geometry = geometry  # pyright: ignore[reportAttributeAccessIssue]
    _geometries[number] = geometry
    return token


def geometry_of(mask: Tensor | None) -> Geometry | None:
    """The geometry behind what a layer got as its mask; None if it is a mask of someone else's."""
    if mask is None:
        return None
    geometry = getattr(mask, "geometry", None)
    if geometry is None and mask.dtype == torch.int64 and mask.numel() == 1:
        geometry = _geometries.get(int(mask))
    return geometry


def bool_mask(mask: Tensor) -> Bool[Tensor, " batch #head query key"]:
    """A user's own four-dimensional mask, bool or additive, as a bool mask."""
    if mask.dtype == torch.bool:
        return mask
    seen = mask == 0
    hidden = mask <= -1e4
    if not bool((seen | hidden).all()):
        raise HeadscopeError(
            "The attention mask adds amounts other than 0 and -inf to the logits; pass a mask "
            "that only hides keys, and add biases with attention.with_bias()."
        )
    return seen


def _rule(mask_function: Callable[..., Any]) -> tuple[int | None, int | None] | None:
    """(window, chunk) of a mask function of transformers; None if it is none of those known."""
    if mask_function is causal_mask_function:
        return None, None
    parts = getclosurevars(mask_function).nonlocals.get("mask_functions", ())
    if len(parts) != 2 or parts[1] is not causal_mask_function:
        return None
    inner, values = parts[0].__qualname__, getclosurevars(parts[0]).nonlocals
    if inner == "sliding_window_overlay.<locals>.inner_mask":
        return int(values["sliding_window"]), None
    if inner == "chunked_overlay.<locals>.inner_mask":
        return None, int(values["chunk_size"])
    return None


def _explicit(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor,
    kv_offset: int,
    mask_function: Callable[..., Any],
    padding: Tensor | None,
    device: Any,
    use_vmap: bool,
) -> Tensor:
    if batch_size * q_length * kv_length > _EXPLICIT_LIMIT:
        raise HeadscopeError(
            f"This model asks for a mask that headscope knows no rule for, and {q_length} × "
            f"{kv_length} tokens are too many to write it out; use a shorter prompt."
        )
    warnings.warn(
        "This model's mask is none of the causal, sliding or chunked kinds: it is written out in "
        "full, which takes memory for every pair of tokens.",
        stacklevel=2,
    )
    written = sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=cast(int, q_offset),  # a static cache counts in a tensor
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=padding,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
        device=device,
    )
    assert written is not None  # it leaves a mask out only where that skip is allowed
    return written
