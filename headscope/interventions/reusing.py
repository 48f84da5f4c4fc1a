"""What methods share whose heads hand the keys they chose to heads of later layers."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.checks import check_sizes
from headscope.interventions.selecting import _Selecting, edge_keys, row_logits, top_keys
from headscope.run import Run

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _Reusing(_Selecting):
    """In each layer some heads read everything and choose keys; the others read what was chosen.

    What head h of a layer chose is read by the heads h of later layers, until one of them chooses
    anew. Choices live within one step, so that tokens can be taken back and beams change places. A
    subclass says in `_choosing` which heads choose.

    Attributes:
        k: keys that a head chooses.
        sink: first tokens that every row reads besides.
        recent: last tokens that every row reads besides, its own among them.
    """

    read_exact: ClassVar[bool] = False  # heads of a group may choose alike
    k: int = field(default=256, kw_only=True)
    sink: int = field(default=0, kw_only=True)
    recent: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        whose = type(self).__name__
        check_sizes(whose, k=(self.k, 1), sink=(self.sink, 0), recent=(self.recent, 0))

    @abstractmethod
    def _choosing(self, layer: int, n_heads: int) -> list[int] | None:
        """The heads of a layer that read everything and choose; None: all read everything and
        nobody chooses. In the first layer that is not None, all choose."""

    def _readable(
        self, attention: Attention, row: int, acts: Bool[Tensor, " batch"], kept: dict[Any, Any]
    ) -> Bool[Tensor, "batch head key"] | None:
        mine = self._choosing(attention.layer, attention.n_heads)
        if mine is None:
            return None
        assert attention.run is not None
        device, step = attention.q.device, attention.run.step
        chooses = torch.zeros(attention.n_heads, 1, dtype=torch.bool, device=device)
        chooses[mine] = True
        # By layer, and not the latest alone: a backward pass may run a layer a second time.
        earlier = [layer for layer in kept if layer < attention.layer]
        if earlier:
            chosen = kept[max(earlier)][1][row].to(device)
        else:
            chosen, chooses = torch.zeros_like(chooses), torch.ones_like(chooses)
        if bool(chooses.any()):
            best = top_keys(row_logits(attention, row), self.k)
            chosen = torch.where(chooses, best, chosen)
            if kept.get(attention.layer, (None,))[0] != step:
                kept[attention.layer] = step, {}
            kept[attention.layer][1][row] = chosen
        if bool(chooses.all()):
            return None
        return chooses | chosen | edge_keys(attention, row, self.sink, self.recent)

    def read_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        """At most so many: a query head reads `k` keys and the edges, and the heads of a group
        choose apart. Exact for a KV head with one query head or with one that reads everything."""
        keys, group = self.kept_keys(model, tokens, new), model.n_heads // model.n_kv_heads
        edges = min(tokens + new, self.sink + self.recent)
        few = min(tokens + new, edges + group * self.k)
        begun = False
        for place, layer in enumerate(model.layers):
            mine = self._choosing(layer, model.n_heads)
            if begun and mine is not None:
                sparse = [
                    kv for kv in range(model.n_kv_heads) if kv not in {h // group for h in mine}
                ]
                keys[place, sparse] = few
            begun = begun or mine is not None
        return keys

    def reorder(self, run: Run, index: Int[Tensor, " new_batch"]) -> None:
        """Nothing outlives a step."""

    def crop(self, run: Run, length: int) -> None:
        """Nothing outlives a step."""
