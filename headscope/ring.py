"""What the KV heads of one layer hold that keep the same tokens: all of them, or a ring."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.blocks import Slots
from headscope.kernels.heads import as_slice

Need = tuple[int, int] | None  # (sink, window) in tokens; None where every key may be seen again


@dataclass(frozen=True, eq=False)
class Joined:
    """The keys and values that a pass attends to: what was held, and its own."""

    k: Float[Tensor, "batch kv_head key d"]
    v: Float[Tensor, "batch kv_head key dv"]
    positions: Int[Tensor, "batch key"] | None  # -1 where nothing is held; None: of every slot


class Store(ABC):
    """Keys and values of some KV heads of a layer, which hold the same tokens.

    Attributes:
        need: what they hold.
        kv_heads, heads: their indices in the layer, and those of the query heads that read them.
        kv_index, head_index: the same to cut a tensor with.
    """

    need: Need = None

    def __init__(self, kv_heads: list[int], group: int) -> None:
        """
        Args:
            kv_heads: indices in the layer, ascending.
            group: query heads that share a KV head.
        """
        self.kv_heads = kv_heads
        self.heads = [kv * group + one for kv in kv_heads for one in range(group)]
        self.kv_index, self.head_index = _index(self.kv_heads), _index(self.heads)
        self.keys: Float[Tensor, "batch kv_head held d"] | None = None
        self.values: Float[Tensor, "batch kv_head held dv"] | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes that are allocated for keys and values, views of larger tensors included."""
        held = (x for x in (self.keys, self.values) if x is not None)
        return sum(x.untyped_storage().nbytes() for x in held)

    @abstractmethod
    def join(
        self,
        k: Float[Tensor, "batch all_kv_head new d"],
        v: Float[Tensor, "batch all_kv_head new dv"],
        positions: Int[Tensor, "batch new"],
        slots: Slots | None,
        seen: int,
    ) -> Joined:
        """Take in the keys and values of new tokens; gives what these tokens may see.

        Args:
            k, v: of all KV heads of the layer.
            positions: of the new tokens, ascending in each row, -1 for padding.
            slots: where they stand, if that is known as plain numbers.
            seen: tokens that the layer has seen, the new ones and padding among them.
        """

    def rows(self, changed: Callable[[Tensor], Tensor]) -> None:
        """Change the batch: each tensor is replaced by what a function makes of it."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = changed(self.keys), changed(self.values)


class Everything(Store):
    """All keys and values, padding among them, in the order of their slots."""

    def join(
        self, k: Tensor, v: Tensor, positions: Tensor, slots: Slots | None, seen: int
    ) -> Joined:
        k, v = k[:, self.kv_index], v[:, self.kv_index]
        # Copied the first time too: what a model hands over may be a view of something larger.
        self.keys = torch.cat((k[:, :, :0] if self.keys is None else self.keys, k), 2)
        self.values = torch.cat((v[:, :, :0] if self.values is None else self.values, v), 2)
        return Joined(self.keys, self.values, None)


class Ring(Store):
    """The first `sink` and the last `window` tokens of each row; padding is never held.

    Position p stands in slot p if p < sink, else in sink + (p - sink) % window: no slot moves
    while the ring grows, and a new token takes the place of the one that leaves the window.
    """

    def __init__(self, kv_heads: list[int], group: int, sink: int, window: int) -> None:
        super().__init__(kv_heads, group)
        self.need = self.sink, self.window = sink, window
        self.positions: Int[Tensor, "batch held"] | None = None  # -1 where nothing is held

    def join(
        self, k: Tensor, v: Tensor, positions: Tensor, slots: Slots | None, seen: int
    ) -> Joined:
        k, v = k[:, self.kv_index], v[:, self.kv_index]
        if self.keys is None or self.values is None or self.positions is None:
            whole = Joined(k, v, positions)
            held = positions[:, :0]
        elif k.shape[2] == 1 and self.keys.shape[2] == self.sink + self.window:
            return self._written(k, v, positions, slots)
        else:
            held = self.positions
            whole = Joined(
                torch.cat((self.keys, k), 2),
                torch.cat((self.values, v), 2),
                torch.cat((held, positions), 1),
            )
        kept = self._kept(whole, held, positions, min(seen, self.sink + self.window))
        self.keys, self.values, self.positions = kept.k, kept.v, kept.positions
        return whole

    def rows(self, changed: Callable[[Tensor], Tensor]) -> None:
        super().rows(changed)
        if self.positions is not None:
            self.positions = changed(self.positions)

    def _kept(
        self, whole: Joined, held: Tensor, new: Int[Tensor, "batch new"], size: int
    ) -> Joined:
        """Of the held and new tokens, those that belong into slots 0 to `size`."""
        assert whole.positions is not None
        length = whole.positions.amax(1, keepdim=True) + 1
        slot = torch.arange(size, device=new.device)
        laps = (length - 1 - slot).clamp(min=0).div(self.window, rounding_mode="floor")
        want = torch.where(slot < self.sink, slot, slot + laps * self.window)
        # New tokens are consecutive: one difference tells where all of a row stand.
        real, count = new >= 0, new.shape[1]
        shift = (new - torch.arange(count, device=new.device)).masked_fill(~real, -count)
        first = new.masked_fill(~real, torch.iinfo(new.dtype).max).amin(1, keepdim=True)
        fresh = want - shift.amax(1, keepdim=True) + held.shape[1]
        index = torch.where(want >= first, fresh, slot).clamp(0, whole.positions.shape[1] - 1)
        found = whole.positions.gather(1, index)
        wide = index[:, None, :, None]
        keys, values = (
            x.gather(2, wide.expand(-1, x.shape[1], -1, x.shape[3])) for x in (whole.k, whole.v)
        )
        return Joined(keys, values, found.masked_fill(found != want, -1))

    def _written(self, k: Tensor, v: Tensor, positions: Tensor, slots: Slots | None) -> Joined:
        """One token into a full ring, where it stands."""
        keys, values, held = self._writable(k, v)
        if slots is not None and not slots.padded:
            start = self.sink + (slots.first_query - self.sink) % self.window
            at = slice(start, start + 1)
            keys[:, :, at], values[:, :, at], held[:, at] = k, v, positions
            return Joined(keys, values, held)
        real = positions >= 0
        turned = self.sink + (positions - self.sink) % self.window
        at = torch.where(positions < self.sink, positions.clamp(min=0), turned)
        held.scatter_(1, at, torch.where(real, positions, held.gather(1, at)))
        # Where padding stands between tokens, the place of one that left may not be taken again.
        held.masked_fill_((held >= self.sink) & (held <= positions - self.window), -1)
        for target, new in ((keys, k), (values, v)):
            index = at[:, None, :, None].expand(new.shape)
            kept = target.gather(2, index)  # a row whose token is padding keeps what it has
            target.scatter_(2, index, torch.where(real[:, None, :, None], new, kept))
        return Joined(keys, values, held)

    def _writable(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ring; a copy where a graph or an inference mode that is over forbids writing."""
        assert self.keys is not None
        assert self.values is not None
        assert self.positions is not None
        graph = any(x.requires_grad for x in (self.keys, self.values, k, v))
        mode = self.keys.is_inference() and not torch.is_inference_mode_enabled()
        if (graph and torch.is_grad_enabled()) or mode:
            self.rows(torch.clone)
        return self.keys, self.values, self.positions


def _index(heads: list[int]) -> slice | Int[Tensor, " some"]:
    """Some heads as what cuts them out."""
    even = as_slice(heads)
    return torch.tensor(heads) if even is None else even
