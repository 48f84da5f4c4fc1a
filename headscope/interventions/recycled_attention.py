from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, max_pool1d, pad

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.checks import check_choice, check_sizes
from headscope.interventions.following import _Following
from headscope.interventions.selecting import _Selecting, check_similarity, ranks
from headscope.interventions.sinks_and_window import all_layers

if TYPE_CHECKING:
    from headscope.model import HeadModel

Group = Literal["max", "sum"]
_NEVER = -1


@dataclass(frozen=True)
class RecycledAttention(_Following, _Selecting):
    """Every few steps a layer attends in full, and the steps in between read what it looked at.

    A full step ranks the keys of each KV head by the attention of its row: the largest weight of
    the group's query heads, or their sum, after the maximum over `kernel` neighbours; of equals
    the earlier key. The last row of the prompt is the first to rank. The t-th step behind a full
    one reads what a queue of k keys holds, and its own key: the ranked keys, of which each step
    drops the last, and the keys read since, which take their place. Step i of an answer is full
    if i is a multiple of `stride`; with a `similarity` only if, besides, the cosine between the
    layer's mean query and that of its last full step lies below it. The prompt is read in full,
    and so the first token of an answer is what it would be without.

    Source: Xu et al. 2024, "Recycled Attention", later "RefreshKV: Updating Small KV Cache During
    Long-form Generation", arXiv 2411.05787v2, section 2.2 and its algorithm 1 (read in a copy of
    the text). Not said there and headscope's own: the default kernel, that queries are compared as
    they attend, with their positions, and that each sequence of a batch has its own schedule.

    Attributes:
        k: keys of the queue.
        stride: steps from one that may be full to the next.
        similarity: cosine from which a step that may be full is not, -1 to 1; all are if left out.
        kernel: neighbours of which the best counts; odd, and 1 is the weight itself.
        group: how the weights of a group's query heads join, "max" (the paper's) or "sum".
    """

    paper = "Xu et al. 2024, arXiv 2411.05787"
    k: int = 256
    stride: int = 10
    similarity: float | None = None
    kernel: int = 7
    group: Group = "max"

    def __post_init__(self) -> None:
        sizes = {name: (getattr(self, name), 1) for name in ("k", "stride", "kernel")}
        check_sizes("RecycledAttention", **sizes)
        if self.kernel % 2 == 0:
            raise HeadscopeError(
                f"RecycledAttention pools over an odd number of keys, not {self.kernel}."
            )
        check_similarity("RecycledAttention", self.similarity)
        check_choice(self, "group", Group)

    @property
    def read_exact(self) -> bool:
        return self.similarity is None

    def _visited(self, attention: Attention) -> Bool[Tensor, "batch query"]:
        start = self._start(attention)[:, None]
        return (attention.query_positions >= 0) & (attention.query_positions >= start - 1)

    def _start(self, attention: Attention) -> Int[Tensor, " batch"]:
        """Where the answer of each sequence starts; behind the first pass where nobody said it."""
        run, at = attention.run, attention.query_positions
        assert run is not None
        if run.prompt_length is not None:
            return run.prompt_length.to(at.device)
        kept = run.state.setdefault(self, {})
        if "start" not in kept:
            kept["start"] = at.amax(1) + 1 if run.phase == "prefill" else at[:, 0]
        return kept["start"].to(at.device)

    def _readable(
        self, attention: Attention, row: int, acts: Bool[Tensor, " batch"], kept: dict[Any, Any]
    ) -> Bool[Tensor, "batch head key"]:
        at, n = attention.query_positions[:, row], attention.n_keys
        query = attention.q[:, :, row].mean(1)
        rank, last, before = kept.get(attention.layer) or (
            torch.full((len(at), attention.n_kv_heads, n), n, device=at.device),
            torch.full_like(at, _NEVER),
            torch.zeros_like(query),
        )
        rank = pad(rank, (0, n - rank.shape[-1]), value=torch.iinfo(rank.dtype).max)
        start = self._start(attention)
        full = acts & ((at - start + 1) % self.stride == 0)
        if self.similarity is not None:
            full &= cosine_similarity(query.double(), before.double()) < self.similarity
        # A sequence whose prompt the method did not see begins with a full step.
        full |= (at == start - 1) | (acts & (last == _NEVER))
        read = self._queue(attention, row, rank, last) | full[:, None, None]
        if bool(full.any()):
            rank = torch.where(full[:, None, None], ranks(self._votes(attention, row)), rank)
            last, before = torch.where(full, at, last), torch.where(full[:, None], query, before)
        kept[attention.layer] = rank, last, before
        return read.repeat_interleave(attention.group, 1)

    def _queue(
        self,
        attention: Attention,
        row: int,
        rank: Int[Tensor, "batch kv_head key"],
        last: Int[Tensor, " batch"],
    ) -> Bool[Tensor, "batch kv_head key"]:
        """What a queue of k keys holds so many steps behind a full one, and the row's own key."""
        at, last = attention.query_positions[:, row, None, None], last[:, None, None]
        keys = attention.keys_by_head()[:, :: attention.group]
        since = (keys > last) & (keys >= at - self.k) & (keys <= at)
        return since | (keys <= last) & (rank < self.k - (at - last - 1))

    def _votes(self, attention: Attention, row: int) -> Float[Tensor, "batch kv_head key"]:
        weights = max_pool1d(attention.rows([row])[:, :, 0], self.kernel, 1, self.kernel // 2)
        votes = reduce(weights, "b (k g) j -> b k j", self.group, g=attention.group)
        seen = attention.visible([row])[:, :, 0]
        if seen.shape[1] > 1:
            seen = rearrange(seen, "b (k g) j -> b k g j", g=attention.group).any(2)
        return votes.masked_fill(~seen, -torch.inf)

    def read_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        """Exact where every step that may be full is; at most so many with a `similarity`."""
        since, total = new % self.stride, tokens + new
        if since == 0:
            return all_layers(model, total)
        if self.similarity is not None:
            return all_layers(model, min(total, self.k + 1))
        ranked = min(tokens + new - since, self.k, max(0, self.k - since + 1))
        return all_layers(model, ranked + min(since, self.k + 1))
