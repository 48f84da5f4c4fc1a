from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError
from headscope.interventions.reusing import _Reusing

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class TidalDecode(_Reusing):
    """One layer chooses keys for each head, and later layers decode with those until a correction.

    In each step of an answer, layers before `chooser` attend in full. Layer `chooser` attends in
    full, and its head h keeps the k keys of largest logit; of equals the earlier key. Head h of
    every later layer reads those alone, until a layer of `corrections`, which attends in full and
    chooses anew. The prompt is read in full, and so the first token of an answer is what it would
    be without. A layer with a window of its own chooses, and reads, within it; a row that may read
    nothing writes zero.

    Source: Yang et al. 2024, "TidalDecode: Fast and Accurate LLM Decoding with Position Persistent
    Sparse Attention", arXiv 2410.05076, and its released code (layer 2 chooses, one correction
    layer; sinks and recent tokens are an option there, within k). Headscope's own: several
    corrections, sinks and recent tokens beside the k keys.

    Attributes:
        k: keys that each head reads.
        chooser: the layer that chooses first.
        corrections: later layers that choose anew; the paper has one, found by a sweep.
        sink: first tokens that every head reads besides.
        recent: last tokens that every head reads besides, the query's own among them.
    """

    paper = "Yang et al. 2024, arXiv 2410.05076"
    k: int = 256
    chooser: int = 2
    corrections: Sequence[int] = (13,)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "corrections", tuple(sorted(set(self.corrections))))
        if self.corrections and self.corrections[0] <= self.chooser:
            raise HeadscopeError(
                f"TidalDecode corrects in layers behind the one that chooses first: "
                f"{self.corrections[0]} is not behind {self.chooser}."
            )

    def check(self, model: "HeadModel") -> None:
        for layer in (self.chooser, *self.corrections):
            if layer not in model.layers:
                raise HeadscopeError(
                    f"{model.name} has no attention layer {layer} for TidalDecode to choose in: "
                    f"they run from {model.layers[0]} to {model.layers[-1]}."
                )
        if self.chooser == model.layers[-1]:
            raise HeadscopeError(
                f"TidalDecode chooses in layer {self.chooser}, behind which {model.name} has none "
                "that could read the choice; choose earlier."
            )

    def _choosing(self, layer: int, n_heads: int) -> list[int] | None:
        if layer < self.chooser:
            return None
        return list(range(n_heads)) if layer in self.corrections else []
