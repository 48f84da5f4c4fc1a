from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from headscope.attention import Attention
from headscope.interventions.checks import check_sizes
from headscope.interventions.following import _Following
from headscope.interventions.selecting import (
    _Selecting,
    check_similarity,
    edge_keys,
    top_keys,
)

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class TokenSelect(_Following, _Selecting):
    """The heads of a layer vote for the keys that all of them read.

    Candidates are the keys behind the first `sink` and before the last `recent`. Each query head
    spreads one vote over them by a softmax of its logits; the k candidates of most votes, summed
    over the layer's heads, are read by all heads, with the first and the last keys. Of equals the
    earlier key wins. Where sink + k + recent keys or fewer are there, all are read. A layer keeps
    its selection while the cosine between its queries, all heads in a row, and those that made the
    selection is `similarity` or more; the last keys move on. The prompt is read in full, and so
    the first token of an answer is what it would be without.

    Source: Wu et al. 2024, "TokenSelect: Efficient Long-Context Inference and Length
    Extrapolation for LLMs via Dynamic Token-Level KV Cache Selection", arXiv 2411.02886, and its
    released code (soft votes over the candidates alone, threshold 0.9). There a prompt is read in
    chunks that select too, and votes are a softmax of q·k without a scale. Headscope's own: a
    prompt read in full, the layer's own scale, queries compared as they attend, with their
    positions.

    Attributes:
        k: keys that are voted for.
        sink: first tokens that are read besides.
        recent: last tokens that are read besides, the query's own among them.
        similarity: cosine from which a selection is kept, -1 to 1; every step selects if None.
    """

    paper = "Wu et al. 2024, arXiv 2411.02886"
    k: int = 2048
    sink: int = 128
    recent: int = 512
    similarity: float | None = 0.9

    def __post_init__(self) -> None:
        check_sizes("TokenSelect", k=(self.k, 1), sink=(self.sink, 0), recent=(self.recent, 1))
        check_similarity("TokenSelect", self.similarity)

    def _readable(
        self, attention: Attention, row: int, acts: Bool[Tensor, " batch"], kept: dict[Any, Any]
    ) -> Bool[Tensor, " batch #head key"]:
        edges = edge_keys(attention, row, self.sink, self.recent)
        at, n = attention.query_positions[:, row], attention.n_keys
        short = at < self.sink + self.k + self.recent
        query = attention.q[:, :, row].flatten(1)
        chosen, before, known = kept.get(attention.layer) or (
            torch.zeros(len(at), n, dtype=torch.bool, device=at.device),
            torch.zeros_like(query),
            torch.zeros_like(acts),
        )
        chosen = pad(chosen, (0, n - chosen.shape[1]))
        anew = acts & ~short
        if self.similarity is not None:
            anew &= ~(known & (cosine_similarity(query, before) >= self.similarity))
        if bool(anew.any()):
            voted = self._voted(attention, row, edges)
            chosen = torch.where(anew[:, None], voted, chosen)
            before = torch.where(anew[:, None], query, before)
        kept[attention.layer] = chosen, before, known | anew
        return edges | (chosen | short[:, None])[:, None]

    def _voted(
        self, attention: Attention, row: int, edges: Bool[Tensor, " batch #head key"]
    ) -> Bool[Tensor, "batch key"]:
        votes = attention.with_bias(edges, -torch.inf).rows([row])[:, :, 0].sum(1)
        seen = (attention.visible([row])[:, :, 0] & ~edges).any(1)
        return top_keys(votes.masked_fill(~seen, -torch.inf), self.k)

    def read_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        return self.kept_keys(model, tokens, new).clamp(max=self.sink + self.k + self.recent)
