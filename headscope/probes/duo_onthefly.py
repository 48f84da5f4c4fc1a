import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.probes.rotation import mean_over_rows, need_rotation
from headscope.prompts.base import PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class DuoOnthefly(Probe):
    """How far a head would look if position alone told keys apart.

    The head's mean query and mean key over the text, after their norms and before rotation, are
    said `length` times and rotated; the last query attends with the layer's own rules. score =
    mean over positions j of sum_{i <= j} A[i], the area under the cumulated attention; in (0, 1].
    About 1: all on the first token; 1/2: even, or no rotation in this layer; 1 / length: all on the
    query's own. Scores of query heads are averaged over their kv_head.

    A layer with a sliding window sees no further than it and scores at most window / length; a
    learned sink takes its share, which counts as no distance. Edits of the logits are left out.

    Source: the gradient-free scores of NVIDIA's kvpress (`duo_attention_on_the_fly`, called
    experimental there), a stand-in for the trained gates of DuoAttention, Xiao et al. 2024, arXiv
    2410.10819. There: 50 chapters of BookSum, length 500, no windows.

    Attributes:
        length: how often the mean query and key are said, in tokens.
    """

    paper = "after Xiao et al. 2024, arXiv 2410.10819, as in NVIDIA's kvpress"
    kv_view = "mean"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))
    length: int = 500

    def __post_init__(self) -> None:
        if self.length < 2:
            raise HeadscopeError(
                f"the probe {self.name!r} needs a length of two or more positions, not "
                f"{self.length}."
            )

    def check_model(self, model: HeadModel) -> None:
        need_rotation(self.name, model)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        weights = self._of_means(attended.attention).rows([0])[0, :, 0]
        return {"duo_onthefly": weights.cumsum(-1).mean(-1)}

    def _of_means(self, attention: Attention) -> Attention:
        """One query at the last of `length` positions, over as many equal keys."""
        rope = attention.rope

        def mean(x: Tensor, positions: Tensor) -> Tensor:
            def plain(some: Tensor, heads: slice) -> Tensor:
                where = positions if positions.ndim == 2 else positions[:, heads]
                return some if rope is None else rope.unrotate(some, where)

            return mean_over_rows(attention, x, plain)[:, :, None]

        q = mean(attention.q, attention.query_positions)
        k = mean(attention.k, attention.key_positions).expand(-1, -1, self.length, -1)
        keys = torch.arange(self.length, device=q.device)[None].expand(len(q), -1)
        last = keys[:, -1:]
        if rope is not None:
            q, k = rope.rotate(q, last), rope.rotate(k, keys)
        return dataclasses.replace(
            attention,
            q=q,
            k=k,
            v=attention.v[:, :, :1].expand(-1, -1, self.length, -1),
            query_positions=last,
            key_positions=keys,
            mask=None,
            slots=Slots(self.length - 1, 0, padded=False),
            hidden=None,
            cache=None,
            edits=(),
            known_lse=None,
        )
