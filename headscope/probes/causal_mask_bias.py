from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.blocks import columns
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe, Reading
from headscope.probes.rotation import need_rotation
from headscope.probes.trends import trend
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.repeated import Repeated
from headscope.stack import Attend

_BINS = 16


@dataclass(frozen=True)
class CausalMaskBias(Probe):
    """What is left of a head's sense of position when every rotation is taken off.

    A pass of its own over random tokens that do not repeat, queries and keys of all layers without
    RoPE. The tokens behind the first are turned round like a wheel, `turns` times by equal steps,
    and their logits averaged, so that content averages out and position stays. Only keys count
    that stand before the query and are not the first token: the first is a sink by content, the
    query's own key is like it by content. With r in (0, 1) the place of a key among those, oldest
    first:

    score = mean over rows i of the prompt's second half of the correlation of the mean logit with
    r, in [-1, 1]. It is positive where a head without rotation prefers near keys, which the paper
    derives for the mask alone, and negative where it prefers early ones: a trained model may take
    them for the first token once nothing else tells them apart. `causal_mask_bias_rise` is the
    slope of that line: logits (nats) gained from the oldest to the newest key. The curve is the
    attention on those keys, normalised to one a row, by sixteenths of r, over what even attention
    would give: 1 is even, 0 where no key falls.

    Source: headscope's own measure, after Kim et al. 2025, "Behind RoPE: How Does Causal Mask
    Encode Positional Information?", arXiv 2509.21042. Layers without rotation run as they are; a
    model without any is refused, since positions that it has learned stand in its hidden states.

    Attributes:
        turns: how often the tokens are said, each time in other places.
    """

    paper = "after Kim et al. 2025, arXiv 2509.21042"
    cost = "own pass"
    alters = True
    scores: ClassVar[Mapping[str, str]] = {
        "causal_mask_bias_rise": "logits gained from the oldest to the newest key, in nats"
    }
    curves: ClassVar[Mapping[str, str]] = {
        "causal_mask_bias_profile": "sixteenths of the keys before the query, oldest first"
    }
    prompts: PromptFamily = field(default_factory=lambda: Repeated(samples=8, block=128, times=2))
    turns: int = 4

    def check_model(self, model: HeadModel) -> None:
        need_rotation(self.name, model)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if not 1 <= self.turns < _unrepeated(prompt) or _unrepeated(prompt) < 8:
            raise HeadscopeError(
                f"the probe 'causal_mask_bias' says {_unrepeated(prompt)} tokens in {self.turns} "
                "turns; use prompts of 8 tokens or more before they repeat, and fewer turns than "
                "tokens."
            )

    @torch.no_grad()
    def read(self, model: HeadModel, prompt: Prompt) -> Mapping[str, Float[Tensor, "layer head"]]:
        ids = torch.tensor(prompt.token_ids[: _unrepeated(prompt)], device=model.device)
        steps = [turn * (len(ids) - 1) // self.turns for turn in range(self.turns)]
        batch = torch.stack([torch.cat((ids[:1], ids[1:].roll(step))) for step in steps])
        reading = Reading(prompt, model, ids, ids[:0], ids[:0])
        found: dict[str, list[Tensor]] = {name: [] for name in self.outputs()}

        def observe(attended: Attended) -> None:
            for name, score in self.measure(attended, reading).items():
                found[name].append(score.cpu())

        with model.entered(_unrotated), model.observed(observe):
            model.forward(batch, last=1)
        return {name: torch.stack(layers) for name, layers in found.items()}

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        n = attention.n_queries
        late = range(n // 2, n)
        zeros = torch.zeros(attention.n_heads, _BINS, device=attention.q.device)
        received, even, sums = zeros.clone(), zeros.clone(), zeros.clone()[:, :2]
        bins = torch.arange(_BINS + 1, device=zeros.device)
        for part in attention.tiles(late):
            counts = _older(attention, part.queries, part.keys)
            if attention.edits:  # which may have taken keys away
                counts = counts & part.logits.isfinite().all(0)
            n_keys = counts.sum(-1, keepdim=True).clamp(min=1)
            r = (counts.cumsum(-1) - 0.5) / n_keys
            logits = part.logits.mean(0).where(counts, 0)
            sums += torch.stack(trend(r.to(logits), logits, counts), -1).sum(1).to(sums)
            p = part.probabilities * counts
            p /= p.sum(-1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
            # Bins are runs of keys: differences of running sums, where a sum by bin is slow.
            edges = torch.searchsorted((r * _BINS).long(), bins.repeat(*r.shape[:-1], 1))
            received += _by_bin(p.mean(0) * n_keys, edges).sum(1).to(zeros)
            even += _by_bin(counts.to(p), edges).sum(1).to(zeros)
        score, rise = (sums / len(late)).unbind(-1)
        return {
            "causal_mask_bias": score,
            "causal_mask_bias_rise": rise,
            "causal_mask_bias_profile": received / even.clamp(min=1),
        }


def _unrepeated(prompt: Prompt) -> int:
    """How many tokens come before the first repeat."""
    return prompt.spans.get("repeats", (len(prompt), len(prompt)))[0]


def _unrotated(attention: Attention, attend: Attend) -> Attended:
    rope = attention.rope
    if rope is None:
        return attend(attention)
    q = rope.unrotate(attention.q, attention.query_positions)
    k = rope.unrotate(attention.k, attention.key_positions)
    return attend(attention.with_q(q).with_k(k))


def _older(
    attention: Attention, queries: Int[Tensor, " row"], keys: slice
) -> Bool[Tensor, "#head row key"]:
    """Which keys each query sees before itself, the first token left out."""
    i, j = queries[:, None], columns(keys, queries)[None, :]
    key = attention.keys_by_head()[0][..., j]
    before = (key > 0) & (key < attention.query_positions[0, i])
    return before & attention.visible_at(i, j).all(0)


def _by_bin(
    x: Float[Tensor, "some_heads row key"], edges: Int[Tensor, "#some_heads row edge"]
) -> Float[Tensor, "some_heads row bin"]:
    """Sums over the keys from each edge to the next."""
    return pad(x.cumsum(-1), (1, 0)).gather(-1, edges.expand(len(x), -1, -1)).diff(dim=-1)
