from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.caching import _Evicting
from headscope.interventions.checks import check_choice, check_sizes
from headscope.interventions.reading_done import ends_prompt
from headscope.interventions.sinks_and_window import all_layers

if TYPE_CHECKING:
    from headscope.model import HeadModel

Pooling = Literal["avg", "max"]


@dataclass(frozen=True)
class SnapKV(_Evicting):
    """After the prompt, each KV head keeps the keys that its last rows looked at, and those rows.

    v_j = sum over query heads h of the KV head and over the last `window` rows i of A_h[i, j], for
    keys before the window; p = v pooled over `kernel` neighbours, with zeros beyond both ends. The
    capacity - window keys of the largest p are kept, with the keys of the window; what is read
    later is all kept. A prompt of up to `capacity` tokens keeps everything.

    It acts once, after the pass that reads the prompt's last token: that pass's last rows vote, so
    that a prompt read in chunks is judged by the rows of its last chunk.

    Source: Li et al. 2024, "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv
    2404.14469. The paper's code repeats keys for query heads and selects for each of them; the sum
    over a group is headscope's own.

    Attributes:
        capacity: keys of the prompt that each KV head keeps.
        window: last rows, which vote and whose own keys are kept.
        kernel: neighbours that are pooled; odd, and 1 is no pooling.
        pooling: "avg" or "max".
    """

    paper = "Li et al. 2024, arXiv 2404.14469"
    phase = "prefill"
    capacity: int = 1024
    window: int = 32
    kernel: int = 5
    pooling: Pooling = "avg"

    def __post_init__(self) -> None:
        check_sizes("SnapKV", window=(self.window, 1), kernel=(self.kernel, 1))
        check_sizes("SnapKV", capacity=(self.capacity, self.window + 1))
        if self.kernel % 2 == 0:
            raise HeadscopeError(f"SnapKV pools over an odd number of keys, not {self.kernel}.")
        check_choice(self, "pooling", Pooling)

    def _still(
        self, attended: Attended, alive: Bool[Tensor, "batch kv_head key"]
    ) -> Bool[Tensor, "batch kv_head key"]:
        ends = ends_prompt(attended.attention)
        if alive.shape[-1] <= self.capacity or not bool(ends.any()):
            return alive
        votes = self._votes(attended.attention).masked_fill(~alive, -torch.inf)
        votes[..., -self.window :] = torch.inf
        # Pooling by the maximum makes equals of neighbours: of those the earlier key stays.
        best = votes.argsort(dim=-1, descending=True, stable=True)[..., : self.capacity]
        chosen = torch.zeros_like(alive).scatter(2, best, True)
        return torch.where(ends[:, None, None], chosen, alive)

    def _votes(self, attention: Attention) -> Float[Tensor, "batch kv_head key"]:
        last = range(max(0, attention.n_queries - self.window), attention.n_queries)
        votes = reduce(attention.rows(last), "b (k g) q j -> b k j", "sum", g=attention.group)
        votes[..., -self.window :] = 0
        pool = avg_pool1d if self.pooling == "avg" else max_pool1d
        return pool(votes, self.kernel, 1, self.kernel // 2)

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        return all_layers(model, min(tokens, self.capacity) + new)
