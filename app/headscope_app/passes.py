"""What the last passes left behind: queries and keys, in bounded memory; runs where torch is."""

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable

import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.model import HeadModel

_MOST = 2**30  # bytes


class Passes:
    """Attentions of the last texts by layer, those used longest ago given up first.

    Args:
        model: whose passes they are.
        most: bytes of queries and keys that are kept.
    """

    def __init__(self, model: HeadModel, most: int = _MOST) -> None:
        self.model, self.most = model, most
        self._kept: OrderedDict[tuple[Hashable, int], Attention] = OrderedDict()
        self._size = 0
        self.run = 0

    @torch.no_grad()
    def attention(self, ids: tuple[int, ...], layer: int) -> Attention:
        """One layer's attention on a text, kept or from a new pass over it."""
        if (ids, layer) not in self._kept:
            wanted: list[Attention] = []

            def observe(attended: Attended) -> None:
                lean = _lean(attended.attention)
                if lean.layer == layer:
                    wanted.append(lean)
                else:
                    self._keep(ids, lean)

            self.run += 1
            with self.model.observed(observe):
                self.model.forward(list(ids), last=1)
            self._keep(ids, wanted[0])
            return wanted[0]
        self._kept.move_to_end((ids, layer))
        return self._kept[ids, layer]

    def _keep(self, ids: tuple[int, ...], attention: Attention) -> None:
        self._kept[ids, attention.layer] = attention
        self._size += _bytes(attention)
        while self._size > self.most and len(self._kept) > 1:
            self._size -= _bytes(self._kept.popitem(last=False)[1])


def _lean(attention: Attention) -> Attention:
    """Without what a pattern does not need: values, hidden states, the cache."""
    v = attention.v[..., :0]
    q, k = attention.q.detach().clone(), attention.k.detach().clone()  # no view of a larger tensor
    return dataclasses.replace(
        attention, q=q, k=k, v=v.clone(), hidden=None, rope=None, cache=None, run=None
    )


def _bytes(attention: Attention) -> int:
    return sum(x.numel() * x.element_size() for x in (attention.q, attention.k))
