from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.caching import _Evicting
from headscope.interventions.checks import check_sizes
from headscope.interventions.reading_done import ends_prompt
from headscope.interventions.sinks_and_window import all_layers
from headscope.probes.task_kv import semantic_distance

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class TaskKV(_Evicting):
    """After the prompt, KV heads that read unlike their layer keep all; the others keep some keys.

    Heads are ranked in each layer by the probe `task_kv`: how far what a head reads lies from what
    the layer's heads read on average; a KV head has the largest distance of its query heads. The
    share of KV heads that lie farthest keep everything. The others keep the first `sink` keys, the
    last `recent` ones and, between them, the `middle` keys that get most attention: summed over
    the last `window` rows and the query heads of the KV head. What is read later is all kept, and
    a prompt of up to sink + recent + middle tokens keeps everything. Where a prompt is read in
    chunks, the rows of its last chunk judge.

    Source: He et al. 2025, "Task-KV: Task-aware KV Cache Optimization via Semantic Differentiation
    of Attention Heads", arXiv 2501.15113 (distances, and sinks, recent tokens and middle
    activations for the heads near the centre). Headscope's own: KV heads by their largest
    distance, which rows count, one size for all near heads, and that later tokens stay.

    Attributes:
        share: of each layer's KV heads that keep everything, 0 to 1, rounded to whole heads, a
            half up.
        sink, recent, middle: keys that the others keep, of each kind.
        window: last rows of the prompt that distance and attention are taken from.
        top: keys that the distance counts at most.
    """

    paper = "after He et al. 2025, arXiv 2501.15113"
    phase = "prefill"
    share: float = 0.4
    sink: int = 4
    recent: int = 64
    middle: int = 64
    window: int = 32
    top: int = 256

    def __post_init__(self) -> None:
        check_sizes("TaskKV", sink=(self.sink, 0), recent=(self.recent, 1), middle=(self.middle, 0))
        check_sizes("TaskKV", window=(self.window, 1), top=(self.top, 1))
        if not 0 <= self.share <= 1:
            raise HeadscopeError(
                f"The share of heads that keep everything lies between 0 and 1, not {self.share}."
            )

    def _full(self, n_kv_heads: int) -> int:
        return int(self.share * n_kv_heads + 0.5)

    def _still(
        self, attended: Attended, alive: Bool[Tensor, "batch kv_head key"]
    ) -> Bool[Tensor, "batch kv_head key"]:
        attention = attended.attention
        ends = ends_prompt(attention)
        if not bool(ends.any()):
            return alive
        last = range(max(0, attention.n_queries - self.window), attention.n_queries)
        far = semantic_distance(attention, last, self.top)
        far = reduce(far, "b (k g) -> b k", "max", g=attention.group)
        best = far.argsort(dim=-1, descending=True, stable=True)
        full = torch.zeros_like(far, dtype=torch.bool)
        full.scatter_(1, best[:, : self._full(attention.n_kv_heads)], True)
        few = self._few(attention, last, alive)
        chosen = torch.where(full[..., None], alive, few)
        return torch.where(ends[:, None, None], chosen, alive)

    def _few(
        self, attention: Attention, last: range, alive: Bool[Tensor, "batch kv_head key"]
    ) -> Bool[Tensor, "batch kv_head key"]:
        positions = attention.keys_by_head()[:, :: attention.group]
        end = attention.query_positions.amax(1)[:, None, None]
        edges = (positions < self.sink) | (positions > end - self.recent)
        votes = rearrange(attention.rows(last), "b (k g) q j -> b k (g q) j", g=attention.group)
        votes = votes.sum(2).masked_fill(edges | ~alive, -torch.inf)
        best = votes.argsort(dim=-1, descending=True, stable=True)[..., : self.middle]
        middle = torch.zeros_like(alive).scatter(2, best, True)
        return edges | middle

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        """As for every method; which KV heads are whole depends on the prompt, and the first ones
        stand for them."""
        kept = all_layers(model, min(tokens, self.sink + self.recent + self.middle) + new)
        kept[:, : self._full(model.n_kv_heads)] = tokens + new
        return kept
