from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended, attend_apart
from headscope.interventions.base import Claim
from headscope.interventions.caching import _Cache
from headscope.interventions.checks import check_sizes
from headscope.interventions.sinks_and_window import (
    _FarSinks,
    _NearStream,
    all_layers,
    check_rotation,
    queries_at,
)
from headscope.patterns.streaming import Streaming
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class LmInfinite(_Cache):
    """Every head sees the first tokens and a window, and no distance is more than a limit.

    Row i sees key j if j < sink or i - j < window (a Λ-shaped mask), as if it stood min(i - j,
    limit) tokens behind. Only first tokens can be so far away; beyond the limit all of them seem
    equally far, where StreamingLLM keeps their order. Models without RoPE get the mask alone.
    Where a layer of the model has a window of its own, that still holds.

    Source: Han et al. 2023, "LM-Infinite: Zero-Shot Extreme Length Generalization for Large
    Language Models", arXiv 2308.16137, section 4 (mask and distance limit; its further keys from
    the middle are left out). The paper takes the pretraining length for window and limit.

    Attributes:
        sink: first tokens that are seen.
        window: last tokens that are seen, the query's own among them.
        limit: the largest distance in tokens, no less than the window; the window if left out.
    """

    paper = "Han et al. 2023, arXiv 2308.16137"
    causal: ClassVar[bool] = True
    claims: ClassVar[frozenset[Claim]] = frozenset({"cache", "positions"})
    sink: int = 10
    window: int = 2048
    limit: int | None = None

    def __post_init__(self) -> None:
        check_sizes("LmInfinite", sink=(self.sink, 0), window=(self.window, 1))
        if self.limit is not None:
            check_sizes("LmInfinite", limit=(self.limit, self.window))

    def check(self, model: "HeadModel") -> None:
        if self.sink:
            check_rotation(model, "LmInfinite", "use StreamingLLM with rotate=False")

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        limit = self.window if self.limit is None else self.limit
        rope, last = attention.rope, int(attention.query_positions.max())
        if rope is None or not self.sink or last <= limit:
            return attend(attention.with_pattern(Streaming(self.sink, self.window)))
        near = attention.with_pattern(_NearStream(self.sink, self.window, limit))
        # Keys at 0 and a query at the limit are the limit apart.
        start = torch.zeros_like(attention.key_positions)
        k = rope.rotate(rope.unrotate(attention.k, attention.key_positions), start)
        q = queries_at(attention, torch.full_like(attention.query_positions, limit))
        far = attention.with_k(k).with_q(q).with_pattern(_FarSinks(self.sink, limit + 1))
        return attend_apart(attend, attention, near, far)

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        return all_layers(model, min(tokens + new, self.sink + self.window))
