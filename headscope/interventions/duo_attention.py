from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head, by_layer
from headscope.interventions.caching import _Cache
from headscope.interventions.checks import check_sizes
from headscope.interventions.kv_heads import check_kv_heads, parse_kv_heads, ranked_kv_heads
from headscope.interventions.parts import _InPart
from headscope.interventions.sinks_and_window import _Beyond, all_layers
from headscope.patterns.streaming import Streaming
from headscope.run import Part
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.model import HeadModel


@dataclass(frozen=True)
class DuoAttention(_InPart, _Cache):
    """Some KV heads keep the first tokens and a window; all others keep everything.

    A query head of a streaming KV head sees key j from row i if j < sink or i - j < window.
    Positions stay those of the text. Where a layer of the model has a window of its own, that
    still holds.

    Source: Xiao et al. 2024, "DuoAttention: Efficient Long-Context LLM Inference with Retrieval
    and Streaming Heads", arXiv 2410.10819, section 2. The paper finds the heads by trained gates
    and streams in the prompt too, in chunks; the simple path of its released code reads the prompt
    with all heads full, which `part="decode"` does. Choosing by a score of a head map is
    headscope's own.

    Attributes:
        streaming: KV heads that stream, as (layer, kv_head) or "L3KV1"; none of them is a no-op.
        sink: first tokens that they keep.
        window: last tokens that they keep, the query's own among them.
        part: rows in which they stream, as in `Ablate`; with "prefill" the cache stays whole.
    """

    paper = "Xiao et al. 2024, arXiv 2410.10819"
    causal: ClassVar[bool] = True
    streaming: Sequence[Head | str]
    sink: int = 64
    window: int = 256
    part: Part = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "streaming", parse_kv_heads(self.streaming))
        check_sizes("DuoAttention", sink=(self.sink, 0), window=(self.window, 1))
        self._check_part()

    @classmethod
    def keeping(
        cls,
        model: "HeadModel",
        full: Sequence[Head | str],
        sink: int = 64,
        window: int = 256,
        part: Part = "all",
    ) -> "DuoAttention":
        """The method by the KV heads that stay full.

        Args:
            full: retrieval KV heads, as (layer, kv_head) or "L3KV1".
        """
        kept = parse_kv_heads(full)
        check_kv_heads(kept, model)
        every = [(layer, kv) for layer in model.layers for kv in range(model.n_kv_heads)]
        return cls([head for head in every if head not in kept], sink, window, part)

    @classmethod
    def from_map(
        cls,
        head_map: "HeadMap",
        score: str = "retrieval",
        share: float = 0.5,
        sink: int = 64,
        window: int = 256,
        part: Part = "all",
        seed: int = 0,
    ) -> "DuoAttention":
        """The method with the KV heads streaming that a score speaks for least.

        Args:
            score: of a score or a role of the map; see `HeadMap.kv_heads`.
            share: of KV heads that stream, 0 to 1, rounded to whole heads.
            seed: of the order among KV heads that score the same.
        """
        if not 0 <= share <= 1:
            raise HeadscopeError(f"The share of streaming heads lies between 0 and 1, not {share}.")
        ranked = ranked_kv_heads(head_map, score, seed)
        return cls(sorted(ranked[: round(share * len(ranked))]), sink, window, part)

    def check(self, model: "HeadModel") -> None:
        check_kv_heads(parse_kv_heads(self.streaming), model)

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        mine = by_layer(parse_kv_heads(self.streaming)).get(attention.layer, [])
        rows = self._rows(attention)
        if not mine or not bool(rows.any()):
            return attend(attention)
        group = attention.group
        heads = [head for kv in mine for head in range(kv * group, (kv + 1) * group)]
        if bool((rows | (attention.query_positions < 0)).all()):
            return attend(attention.with_pattern(Streaming(self.sink, self.window), heads))
        amount = torch.where(rows, -torch.inf, 0.0)[:, None]
        return attend(attention.with_bias(_Beyond(self.sink, self.window), amount, heads))

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        kept = all_layers(model, tokens + new)
        if self.part != "prefill":
            for layer, kv in parse_kv_heads(self.streaming):
                kept[model.layers.index(layer), kv].clamp_(max=self.sink + self.window)
        return kept
