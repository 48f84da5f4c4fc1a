"""Random layers for rules: grouped heads, caches, padding, holes, windows, edits and sinks."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.patterns import Streaming


@dataclass(frozen=True)
class Drawn:
    """The arguments of an attention, and what its edits add to its logits."""

    layer: dict[str, Any]
    bias: tuple[list[int], Tensor] | None = None  # keys, and an amount [batch, head, query]
    restricted: tuple[Streaming, list[int]] | None = None  # heads
    small_blocks: bool = False

    def attention(self) -> Attention:
        """Built in the tests: beartype draws random numbers, which a strategy may not."""
        a = Attention(**self.layer)
        if self.bias is not None:
            a = a.with_bias(*self.bias)
        return a if self.restricted is None else a.with_pattern(*self.restricted)

    def extra(self) -> Tensor:
        """[batch, head, query, key] float64."""
        q, k = self.layer["q"], self.layer["k"]
        added = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.float64)
        if self.bias is not None:
            keys, amount = self.bias
            added[..., keys] += amount[..., None]
        if self.restricted is not None:
            rule, heads = self.restricted
            key = self.layer["key_positions"]
            key = key[:, None] if key.ndim == 2 else key
            key = key.repeat_interleave(q.shape[1] // key.shape[1], 1)[:, :, None]
            query = self.layer["query_positions"][:, None, :, None]
            outside = (key >= rule.sink) & (query - key >= rule.window)
            for head in heads:
                added[:, head].masked_fill_(outside[:, head % outside.shape[1]], -torch.inf)
        return added


@st.composite
def layers(draw: st.DrawFn, most: int = 12, padded: bool = False) -> Drawn:
    batch, kv_heads, group = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
    )
    n_q, past = draw(st.integers(1, most)), draw(st.sampled_from([0, 0, 1, 6, 11]))
    d, n_k = 4, n_q + past
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    padding = draw(
        st.sampled_from(["left", "right"] if padded else ["none", "none", "left", "right"])
    )
    slot = torch.arange(n_k).expand(batch, -1)
    key = slot
    if padding != "none":
        pads = torch.tensor([draw(st.integers(0, n_k)) for _ in range(batch)])[:, None]
        real = slot >= pads if padding == "left" else slot < n_k - pads
        key = torch.where(real, slot - pads if padding == "left" else slot, -1)
    query = key[:, past:]
    holes = draw(st.integers(0, 3)) == 0
    if holes:  # every kv_head holds other keys
        drop = torch.rand(batch, kv_heads, n_k, generator=generator) < draw(st.floats(0.1, 0.9))
        key = torch.where(drop, -1, key[:, None])
    n_heads = kv_heads * group
    masked = draw(st.integers(0, 7)) == 0
    some = torch.rand(batch, draw(st.sampled_from([1, n_heads])), n_q, n_k, generator=generator)
    layer = {
        "layer": 0,
        "q": normal(batch, n_heads, n_q, d) * 2,
        "k": normal(batch, kv_heads, n_k, d),
        "v": normal(batch, kv_heads, n_k, 3),
        "scale": d**-0.5,
        "query_positions": query,
        "key_positions": key,
        "softcap": draw(st.sampled_from([None, None, 1.5])),
        "window": draw(st.sampled_from([None, None, None, 1, 5])),
        "chunk": draw(st.sampled_from([None, None, None, 6])),
        "sink_logits": normal(n_heads) if draw(st.booleans()) else None,
        "mask": some < 0.7 if masked else None,
        "slots": None if holes or masked else Slots(past, 0, padding != "none"),
    }
    bias = restricted = None
    if draw(st.integers(0, 2)) == 0:
        keys = sorted({draw(st.integers(0, n_k - 1)) for _ in range(3)})
        bias = keys, normal(batch, n_heads, n_q) * 2
    if draw(st.integers(0, 3)) == 0:
        restricted = Streaming(1, 4), list(range(0, n_heads, 2))
    return Drawn(layer, bias, restricted, draw(st.booleans()))
