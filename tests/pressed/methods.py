"""Awkward published methods, each as short as the seam lets it be.

They exist to press the contract: the tests beside them hold every one to a dense oracle. The
underscore keeps them out of the registry.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from einops import reduce
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended, attend_apart
from headscope.heads import Head
from headscope.interventions.base import Intervention
from headscope.patterns import Pattern, Streaming
from headscope.run import Run
from headscope.stack import Attend


@dataclass(frozen=True)
class _Act(Intervention):
    """ACT (arXiv 2406.15765): weaken every sink but the first, to the gain of all other keys."""

    causal: ClassVar[bool] = False
    beta: float = 0.4
    threshold: float = 0.1

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        sinks = attention.column_means() > self.threshold
        sinks &= sinks.cumsum(-1) > 1
        # 1 - mass would lose every digit on a head that looks at little else.
        mass, rest = attention.mass(sinks), attention.mass(~sinks)
        factor = self.beta * rest / (1 - self.beta * mass)
        return attend(attention.with_bias(sinks, factor.log()))


@dataclass(frozen=True)
class _Pasta(Intervention):
    """PASTA (arXiv 2311.02262): weaken every key outside a span by one factor."""

    span: tuple[int, int] = (3, 6)
    alpha: float = 0.01

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        outside = torch.ones(attention.n_keys, dtype=torch.bool)
        outside[slice(*self.span)] = False
        return attend(attention.with_bias(outside, torch.tensor(self.alpha).log()))


@dataclass(frozen=True)
class _SnapKV(Intervention):
    """SnapKV (arXiv 2404.14469): after prefill, keep what the last queries looked at."""

    causal: ClassVar[bool] = False
    window: int = 4
    capacity: int = 10

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        if attention.run.phase == "prefill":
            attention.cache.keep(self.kept(attended.attention))
        return attended

    def kept(self, attention: Attention) -> Tensor:
        n = attention.n_keys
        rows = attention.rows(range(n - self.window, n))
        votes = reduce(rows, "b (k g) q j -> b k j", "sum", g=attention.group)
        votes = torch.nn.functional.avg_pool1d(votes, 5, 1, 2)
        votes = votes.masked_fill(attention.key_positions[:, None] < 0, -1)
        votes[..., n - self.window :] = torch.inf
        return votes.topk(self.capacity).indices.sort(-1).values


@dataclass(frozen=True)
class _Band(Pattern):
    """Keys before `sink` that are further than the window, or the window alone."""

    sink: int
    window: int

    def mask(self, query: Tensor, key: Tensor) -> Tensor:
        far = query - key >= self.window
        return (key < self.sink) & far if self.sink else ~far


@dataclass(frozen=True)
class _StreamingLLM(Intervention):
    """StreamingLLM (arXiv 2309.17453): first tokens and a window, encoded by place in the cache."""

    sink: int = 2
    window: int = 6

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        # Seen from the sinks, a query stands right behind a full cache and never further.
        position, rope = attention.query_positions, attention.rope
        near = position.clamp(max=self.sink + self.window - 1)
        q = rope.rotate(rope.unrotate(attention.q, position), near)
        recent = attention.with_pattern(_Band(0, self.window))
        early = attention.with_q(q).with_pattern(_Band(self.sink, self.window))
        return attend_apart(attend, attention, recent, early)


@dataclass(frozen=True)
class _NoRope(Intervention):
    """What position the causal mask alone gives ('Behind RoPE'): every rotation taken off."""

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        rope = attention.rope
        q = rope.unrotate(attention.q, attention.query_positions)
        k = rope.unrotate(attention.k, attention.key_positions)
        return attend(attention.with_q(q).with_k(k))


@dataclass(frozen=True, eq=False)
class _Direction(Intervention):
    """Focus directions (arXiv 2503.23306): a vector per head, added to q after rotation."""

    directions: Tensor  # [layer, head, d]

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        return attend(attention.with_q(attention.q + self.directions[attention.layer][:, None]))


@dataclass(frozen=True, eq=False)
class _DuoGate(Intervention):
    """DuoAttention's training pass (arXiv 2410.10819): row 0 teaches, row 1 mixes two branches."""

    alpha: Tensor  # [layer, kv_head]
    pattern: Streaming = field(default_factory=lambda: Streaming(sink=1, window=3))

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        full, stream = attend(attention), attend(attention.with_pattern(self.pattern))
        gate = self.alpha[attention.layer].repeat_interleave(attention.group)[:, None, None]
        mixed = gate * full.z[:1].detach() + (1 - gate) * stream.z[1:]
        return full.with_z(torch.cat((full.z[:1], mixed)))


@dataclass(frozen=True)
class _Tidal(Intervention):
    """TidalDecode (arXiv 2410.05076): one layer chooses the keys that later layers decode with."""

    stateful: ClassVar[bool] = True
    chooser: int = 1
    k: int = 5

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        if attention.run.phase != "decode" or attention.layer < self.chooser:
            return attend(attention)
        if attention.layer == self.chooser:
            top = attention.rows([0])[:, :, 0].topk(min(self.k, attention.n_keys)).indices
            chosen = torch.zeros(*top.shape[:2], attention.n_keys, dtype=torch.bool)
            attention.run.state[self] = chosen.scatter(2, top, True)
            return attend(attention)
        return attend(attention.with_bias(~attention.run.state[self], -torch.inf))

    def crop(self, run: Run, length: int) -> None:
        """What a layer chose is used in the same step only, so there is nothing to take back."""


@dataclass(frozen=True, eq=False)
class _Patch(Intervention):
    """Replaces z of some heads, and q of others, by tensors kept from other passes."""

    z: dict[Head, Tensor] = field(default_factory=dict)
    q: dict[Head, Tensor] = field(default_factory=dict)

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        q = attention.q.clone()
        for (layer, head), kept in self.q.items():
            if layer == attention.layer:
                q[:, head] = kept
        attended = attend(attention.with_q(q))
        z = attended.z.clone()
        for (layer, head), kept in self.z.items():
            if layer == attention.layer:
                z[:, head] = kept
        return attended.with_z(z)


def path_effect(model, clean: Tensor, corrupt: Tensor, sender: Head, receiver: Head) -> Tensor:
    """Logits when a sender's change reaches a receiver's query and nothing else (IOI)."""

    def run(ids: Tensor, patch: _Patch) -> tuple[Tensor, dict[Head, Tensor], dict[Head, Tensor]]:
        z, q = {}, {}

        def keep(attended: Attended) -> None:
            a = attended.attention
            for head in range(a.n_heads):
                z[a.layer, head], q[a.layer, head] = attended.z[:, head], a.q[:, head]

        with patch(model), model.observed(keep):
            return model(ids), z, q

    _, clean_z, _ = run(clean, _Patch())
    _, corrupt_z, _ = run(corrupt, _Patch())
    _, _, q = run(clean, _Patch(z=clean_z | {sender: corrupt_z[sender]}))
    return run(clean, _Patch(q={receiver: q[receiver]}))[0]
