from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError
from headscope.heads import Head, by_layer, check_heads, parse_heads
from headscope.interventions.reusing import _Reusing

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.model import HeadModel


@dataclass(frozen=True)
class LycheeDecode(_Reusing):
    """Retrieval heads decode with every key and choose some for the heads of their number above.

    In each step of an answer a head of `heads` attends in full and keeps the k keys of largest
    logit, of equals the earlier one. Every other head h reads what the nearest head h of an
    earlier layer kept that did choose. In the first attention layer all heads attend in full and
    choose. The prompt is read in full, and so the first token of an answer is what it would be
    without. A layer with a window of its own chooses, and reads, within it; a row that may read
    nothing writes zero.

    Source: Lin et al. 2026, "LycheeDecode: Accelerating Long-Context LLM Inference via Hybrid-Head
    Sparse Decoding", arXiv 2602.04541 (roles by head, the choice handed to the same index; read
    second-hand). The paper trains the roles by HardKuma gates; here they are given, by a head map
    for instance, which is headscope's own, as are the first layer, sinks and recent tokens.

    Attributes:
        heads: retrieval heads, as (layer, head) pairs or names like "L17H3"; with all heads it is
            a no-op.
        k: keys that each head hands on.
        sink: first tokens that every head reads besides.
        recent: last tokens that every head reads besides, the query's own among them.
    """

    paper = "after Lin et al. 2026, arXiv 2602.04541"
    heads: Sequence[Head | str]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "heads", parse_heads(self.heads))

    @classmethod
    def from_map(
        cls,
        head_map: "HeadMap",
        score: str = "retrieval",
        share: float = 0.1,
        k: int = 256,
        sink: int = 0,
        recent: int = 0,
    ) -> "LycheeDecode":
        """The method with the heads retrieving that a score speaks for most.

        Args:
            score: of a score or a role of the map.
            share: of all heads that retrieve, 0 to 1, rounded to whole heads.
        """
        if not 0 <= share <= 1:
            raise HeadscopeError(f"The share of retrieval heads lies between 0 and 1, not {share}.")
        count = round(share * len(head_map.heads()))
        names = head_map.top(score, count)["name"] if count else ()
        return cls(tuple(names), k=k, sink=sink, recent=recent)

    def check(self, model: "HeadModel") -> None:
        check_heads(parse_heads(self.heads), model.layers, model.n_heads, model.name)

    def _choosing(self, layer: int, n_heads: int) -> list[int] | None:
        return by_layer(parse_heads(self.heads)).get(layer, [])
