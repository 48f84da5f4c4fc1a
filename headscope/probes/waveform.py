from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.probes.rotation import in_pairs, mean_over_rows, need_rotation, turns
from headscope.prompts.base import PromptFamily
from headscope.prompts.text import Text

_POINTS = 64


@dataclass(frozen=True)
class Waveform(Probe):
    """How deep the waves of RoPE cut into a head's logits.

    envelope(m) = sum_t w_t cos(m theta_t) / sum_t w_t, with w_t = mean_i |q_i^(t)| * mean_j
    |k_j^(t)| over the prompt for each rotary pair t: the logit of a query and a key that agree in
    every pair, m tokens apart. score = 1 - min of it over m = 1 ... reach, in [0, 2]: the depth of
    the deepest trough, often far out, since the waves fade. `waveform_trough` is its distance in
    tokens. Both keep to distances that the layer's window or chunk lets it see. Dimensions that
    are not rotated are left out; a layer without rotation has the envelope 1 and scores 0, its
    trough at 0.

    Source: the upper envelope of Attention Buckets (Chen et al. 2023, arXiv 2312.04455), which
    has equal weights: (2 / sqrt(d)) sum_t cos(m theta_t). Weighting it by a head's own norms is
    headscope's. No head is known to have a certain depth: the oracle is that closed form, which
    the envelope equals, divided by its value at 0, where all norms are equal.

    Attributes:
        reach: the largest distance, in tokens.
    """

    paper = "after Chen et al. 2023, arXiv 2312.04455"
    scores: ClassVar[Mapping[str, str]] = {
        "waveform_trough": "distance of the deepest trough, in tokens"
    }
    curves: ClassVar[Mapping[str, str]] = {
        "waveform_curve": "64 distances (or `reach` of them, if fewer): one by one, then evenly "
        "in their logarithm up to `reach` tokens; point p is max(p + 1, round(reach ** (p / 63)))"
    }
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))
    reach: int = 1024

    @property
    def distances(self) -> list[int]:
        """Where the points of the curve stand, in tokens."""
        n = min(_POINTS, self.reach)
        return [max(p + 1, round(self.reach ** (p / max(1, n - 1)))) for p in range(n)]

    def check_model(self, model: HeadModel) -> None:
        need_rotation(self.name, model)
        # Tables that are scaled with the length would change under longer distances.
        if not 1 <= self.reach < model.context_length:
            raise HeadscopeError(
                f"the probe 'waveform' looks {self.reach} tokens far, and {model.name} was made "
                f"for {model.context_length}; choose a reach between 1 and "
                f"{model.context_length - 1}."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        waves = turns(attention, self.reach)
        angles = waves.shape[1]
        if angles == 0:
            still = waves.new_zeros(attention.n_heads)
            flat = waves.new_ones(attention.n_heads, len(self.distances))
            return {"waveform": still, "waveform_trough": still, "waveform_curve": flat}
        q, k = (_norms(attention, x, angles) for x in (attention.q, attention.k))
        weights = (q * repeat(k, "k t -> (k g) t", g=attention.group)).to(waves)
        tiny = torch.finfo(weights.dtype).tiny
        envelope = weights @ waves.T / weights.sum(1, keepdim=True).clamp(min=tiny)
        sees = min(x for x in (attention.window, attention.chunk, self.reach + 1) if x is not None)
        trough = envelope[:, 1 : max(sees, 2)].min(1)
        return {
            "waveform": 1 - trough.values,
            "waveform_trough": (trough.indices + 1).to(envelope),
            "waveform_curve": envelope[:, self.distances],
        }


def _norms(
    attention: Attention, x: Float[Tensor, "1 any_head n d"], angles: int
) -> Float[Tensor, "any_head angle"]:
    def norms(some: Tensor, _: slice) -> Tensor:
        one, other = in_pairs(attention, some, angles)
        return (one.square() + other.square()).sqrt()

    return mean_over_rows(attention, x, norms)[0]
