from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.blocks import Tile, wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.probes.rotation import in_pairs, need_rotation, wavelengths
from headscope.probes.trends import ranks, trend
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text

_RUN = 8  # rows: keys at one distance from neighbours lie together, in one small slice


@dataclass(frozen=True)
class RopeDistance(Probe):
    """Whether slow rotary pairs carry more of a head's logits the further away it looks.

    c_t(i, j) is what rotary pair t adds to q_i . k_j. For distances in [b, 2b), b = nearest,
    2 nearest, 4 nearest, ...: C_t(b) = sum A_ij c_t(i, j) / sum A_ij, and low(b) = the share of
    sum_t |C_t(b)| that comes from pairs whose wavelength is longer than the prompt. score =
    Spearman's correlation of b with low(b), in [-1, 1], equal values sharing their mean rank, over
    those b that hold at least `least` of the attention; 0 where fewer than three do, where low is
    constant, and in a layer without rotation. Dimensions that are not rotated are left out.
    `rope_far`, in [0, 1], is the attention on keys an eighth of the prompt away or further. All of
    it is read on all keys of `runs` runs of 8 rows, each run ending an equal part of the prompt's
    second half. Fast pairs cancel where a range of distances is wide, so that most heads of a
    model with RoPE score high: it ranks heads, and no threshold is given.

    Source: headscope's own "RoPE-distance head", after the positional heads of Hong et al. 2024,
    arXiv 2410.08703, whose exact metric was not seen: no reproduction is claimed.

    Attributes:
        runs: how many runs of rows are read; a run is as short as its part where that has no 8.
        nearest: the smallest distance that counts, in tokens.
        least: share of the rows' attention below which a range of distances is left out.
    """

    paper = "after Hong et al. 2024, arXiv 2410.08703"
    scores: ClassVar[Mapping[str, str]] = {
        "rope_far": "attention on keys an eighth of the prompt away or further"
    }
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=4, lengths=(2048,)))
    runs: int = 8
    nearest: int = 4
    least: float = 1e-4

    def check_model(self, model: HeadModel) -> None:
        need_rotation(self.name, model)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if self.nearest < 1 or len(prompt) <= 4 * self.nearest:
            raise HeadscopeError(
                f"the probe 'rope_distance' compares three doublings of the distance, from "
                f"{self.nearest} tokens on, in a prompt of {len(prompt)}; use longer prompts, or a "
                "nearest of 1 or more."
            )
        if not 1 <= self.runs <= len(prompt) // 2:
            raise HeadscopeError(
                f"the probe 'rope_distance' reads {self.runs} runs of rows in half a prompt of "
                f"{len(prompt)} tokens; choose a runs between 1 and {len(prompt) // 2}."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        n = attention.n_queries
        waves = wavelengths(attention)
        starts = [b for b in (self.nearest << x for x in range(n.bit_length())) if b < n]
        mass = torch.zeros(attention.n_heads, len(starts), device=waves.device)
        carried = torch.zeros(*mass.shape, len(waves), device=waves.device)
        far = torch.zeros(attention.n_heads, device=waves.device)
        ends = [n // 2 + (run + 1) * (n - n // 2) // self.runs for run in range(self.runs)]
        length = min(_RUN, (n - n // 2) // self.runs)
        k = wide(pad(attention.k[0], (0, 1), value=1.0))  # the attention itself rides along
        for end in ends:
            rows = range(end - length, end)
            for part in attention.tiles(rows):
                distance = _distance(attention, part)
                far += (part.probabilities[0] * (8 * distance >= n)).sum((1, 2)).to(far)
                held, by_pair = _carried(attention, k, part, distance, rows, starts, len(waves))
                mass += held
                carried += by_pair
        count = length * len(ends)
        size = (carried / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]).abs()
        slow = size[..., waves > n].sum(-1) / size.sum(-1).clamp(min=torch.finfo(size.dtype).tiny)
        counts = mass >= self.least * count
        order = torch.arange(len(starts), device=waves.device).to(slow).expand_as(slow)
        rising = trend(ranks(order, counts), ranks(slow, counts), counts)
        return {"rope_distance": rising.correlation, "rope_far": far / count}


def _distance(attention: Attention, part: Tile) -> Int[Tensor, "row key"]:
    keys = attention.keys_by_head()[0, 0, part.keys]
    return attention.query_positions[0, part.queries, None] - keys


def _carried(
    attention: Attention,
    every_k: Float[Tensor, "kv_head any_key wider"],
    part: Tile,
    distance: Int[Tensor, "row key"],
    rows: range,
    starts: list[int],
    angles: int,
) -> tuple[Float[Tensor, "head range"], Float[Tensor, "head range angle"]]:
    """Attention in every range of distances of a tile, and what each pair adds by it."""
    p = rearrange(part.probabilities[0], "(k g) r j -> k g r j", g=attention.group)
    k = every_k[:, part.keys]
    weighed, place = [], torch.bucketize(distance, distance.new_tensor(starts), right=True)
    for number, start in enumerate(starts):
        # Beyond these keys no row of the run has one at such a distance.
        edges = rows.start - 2 * start + 1, rows.stop - start
        keys = slice(*(max(0, edge - part.keys.start) for edge in edges))
        inside = place[:, keys] == number + 1
        weighed.append((p[..., keys] * inside).flatten(1, 2) @ k[:, keys])
    each = rearrange(torch.stack(weighed), "b k (g r) d -> (k g) b r d", g=attention.group)
    products = (wide(attention.q[0, :, None, part.queries]) * each[..., :-1]).sum(2)
    one, other = in_pairs(attention, products, angles)
    return each[..., -1].sum(2), one + other
