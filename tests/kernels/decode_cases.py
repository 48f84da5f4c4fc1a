"""Ragged stores for decode steps, poisoned where nothing is held, and what has to come out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headscope.kernels.decode_plan import ALL, DecodePlan, KeyStore, See

Need = tuple[int, int] | None


@dataclass
class Case:
    """A decode step: keys by position, and where they lie."""

    q: Tensor
    k: Tensor
    v: Tensor
    seen: Tensor
    needs: list[Need]
    sees: list[See]
    stores: list[KeyStore]

    @property
    def plan(self) -> DecodePlan:
        return DecodePlan.of(self.stores, self.sees)

    def expected(self, scale: float, softcap: float | None = None) -> tuple[Tensor, Tensor]:
        """(z, lse) in float32, by a dense mask."""
        group = len(self.sees) // len(self.needs)
        now = self.seen[:, None, None] - 1
        key = torch.arange(self.k.shape[2], device=self.q.device)
        rules = torch.tensor(self.sees, device=self.q.device)
        held = torch.tensor([n or (ALL, ALL) for n in self.needs], device=self.q.device)
        held = held.repeat_interleave(group, 0)
        mask = key <= now
        for sink, window in (rules.T[:, :, None], held.T[:, :, None]):
            mask = mask & ((key < sink) | (now - key < window))
        k, v = (x.float().repeat_interleave(group, 1) for x in (self.k, self.v))
        logits = torch.einsum("bhd,bhnd->bhn", self.q[:, :, 0].float(), k) * scale
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        logits = logits.masked_fill(~mask, -torch.inf)
        z = torch.einsum("bhn,bhnd->bhd", logits.softmax(-1), v)
        return z[:, :, None], logits.logsumexp(-1)[..., None]


def make(
    seen: Sequence[int],
    needs: Sequence[Need],
    sees: Sequence[See],
    d: int = 64,
    room: int = 5,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float16,
    order: Sequence[int] | None = None,
) -> Case:
    """
    Args:
        seen: tokens of each sequence.
        needs: of each KV head, (sink, window) of its ring; None for a flat store.
        sees: of each query head.
        room: slots of flat stores beyond the longest sequence.
        order: of the stores; alike KV heads share one.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, n_kv, most = len(seen), len(needs), max(seen)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    k, v = normal(batch, n_kv, most, d), normal(batch, n_kv, most, d)
    q = normal(batch, 1, len(sees), d).transpose(1, 2)  # as a projection leaves it
    kinds = list(dict.fromkeys(needs))
    stores = []
    for need in [kinds[i] for i in order] if order else kinds:
        kv_heads = [kv for kv, other in enumerate(needs) if other == need]
        slots = most + room if need is None else sum(need)
        held = torch.full((2, batch, len(kv_heads), slots, d), torch.nan, device=device).to(dtype)
        for b, n in enumerate(seen):
            sink, window = need or (n, 1)
            for p in range(n) if need is not None and n < 4096 else ():
                slot = p if p < sink else sink + (p - sink) % window
                held[0, b, :, slot], held[1, b, :, slot] = k[b, kv_heads, p], v[b, kv_heads, p]
            if need is None:
                held[0, b, :, :n], held[1, b, :, :n] = k[b, kv_heads, :n], v[b, kv_heads, :n]
            elif n >= 4096:
                p = torch.cat((torch.arange(sink), torch.arange(n - window, n)))
                slot = torch.where(p < sink, p, sink + (p - sink) % window)
                held[0, b, :, slot] = k[b][kv_heads][:, p]
                held[1, b, :, slot] = v[b][kv_heads][:, p]
        stores.append(KeyStore(held[0], held[1], kv_heads, need))
    lengths = torch.tensor(seen, dtype=torch.int32, device=device)
    return Case(q, k, v, lengths, list(needs), list(sees), stores)
