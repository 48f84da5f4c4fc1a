from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended, attend_apart
from headscope.interventions.base import Claim
from headscope.interventions.caching import _Cache
from headscope.interventions.checks import check_sizes
from headscope.interventions.sinks_and_window import (
    _FarSinks,
    all_layers,
    check_rotation,
    queries_at,
)
from headscope.patterns.streaming import Streaming
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class StreamingLLM(_Cache):
    """Every head keeps the first tokens and a window, encoded by their place in the cache.

    Row i sees key j if j < sink or i - j < window. Places count from 0 without gaps, so that a
    query stands at min(i, sink + window - 1): keys of the window keep their distance, and a sink j
    beyond the window is seen min(i, sink + window - 1) - j tokens away. Models without RoPE get
    the mask alone. Where a layer of the model has a window of its own, that still holds.

    Every row of a pass is read so, the prompt's too: a chunk or a draft is what single steps
    would be. The released code evicts after a pass, so that rows of one pass see each other, and
    a query its own key beside the window; here the query's own key is one of the window.

    Source: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv
    2309.17453, section 3.2 (StreamingLLM) and its released code.

    Attributes:
        sink: first tokens that are kept; 0 is window attention.
        window: last tokens that are kept, the query's own among them.
        rotate: encode by place in the cache; False keeps the positions of the text, which is the
            same as long as nothing was dropped.
    """

    paper = "Xiao et al. 2023, arXiv 2309.17453"
    causal: ClassVar[bool] = True
    claims: ClassVar[frozenset[Claim]] = frozenset({"cache", "positions"})
    sink: int = 4
    window: int = 256
    rotate: bool = True

    def __post_init__(self) -> None:
        check_sizes("StreamingLLM", sink=(self.sink, 0), window=(self.window, 1))

    def check(self, model: "HeadModel") -> None:
        if self.rotate and self.sink:
            check_rotation(model, "StreamingLLM", "pass rotate=False to keep their positions")

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        size, at = self.sink + self.window, attention.query_positions
        moves = self.rotate and self.sink > 0 and attention.rope is not None
        if not moves or int(at.max()) < size:
            return attend(attention.with_pattern(Streaming(self.sink, self.window)))
        # Distances within the window are what they were, so only what sinks see has to move.
        q = queries_at(attention, at.clamp(max=size - 1))
        recent = attention.with_pattern(Streaming(0, self.window))
        early = attention.with_q(q).with_pattern(_FarSinks(self.sink, self.window))
        return attend_apart(attend, attention, recent, early)

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        return all_layers(model, min(tokens + new, self.sink + self.window))
