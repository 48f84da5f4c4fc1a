"""One layer's attention over one text: what every contender of a row is given."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule


@dataclass(frozen=True, eq=False)
class Case:
    """A layer's rules, and queries, keys and values of a text.

    Attributes:
        rules: of each query head.
    """

    rules: tuple[Rule, ...]
    q: Float[Tensor, "1 head token d"]
    k: Float[Tensor, "1 kv_head token d"]
    v: Float[Tensor, "1 kv_head token d"]

    @property
    def n(self) -> int:
        return self.q.shape[2]

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.q.shape[1] // self.k.shape[1]

    @property
    def scale(self) -> float:
        return self.q.shape[3] ** -0.5

    @property
    def full(self) -> list[int]:
        """Heads that see everything."""
        return [head for head, rule in enumerate(self.rules) if rule == Full()]

    @property
    def patterns(self) -> tuple[Pattern, ...] | None:
        """The rules, where all of them go by position."""
        found = tuple(rule for rule in self.rules if isinstance(rule, Pattern))
        return found if len(found) == len(self.rules) else None

    def attention(self) -> Attention:
        """The same for the seam."""
        positions = torch.arange(self.n, device=self.q.device)[None]
        return Attention(
            layer=0,
            q=self.q,
            k=self.k,
            v=self.v,
            scale=self.scale,
            query_positions=positions,
            key_positions=positions,
            slots=Slots(0, 0, padded=False),
        )
