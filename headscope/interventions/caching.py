"""What methods share that keep less of a KV cache: which keys each KV head still sees."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from einops import repeat
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.base import Claim, Intervention, Site
from headscope.interventions.following import _Following
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _Cache(Intervention):
    """A method that lives with fewer keys. Its accuracy is exact, and its memory a count.

    Keys that a method gave up are hidden from every later query instead of freed, so that heads
    may keep different numbers; the logits are those of a cache that really holds the rest, and
    `kv_bytes` says what that cache would take. On layers with a window of their own, which hold
    less in any case, it is an upper bound.
    """

    site: ClassVar[Site] = "cache"
    causal: ClassVar[bool] = False
    claims: ClassVar[frozenset[Claim]] = frozenset({"cache"})

    @abstractmethod
    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        """Keys that each KV head holds while the last of `new` tokens after a prompt is read.

        Args:
            tokens: tokens of the prompt, read in one pass.
            new: tokens read after it one by one; the last one's own key counts as held.
        """

    def kv_bytes(self, model: "HeadModel", tokens: int, new: int = 1) -> int:
        """Bytes of the keys and values that it would keep, for one sequence; see `kept_keys`."""
        width = model.d_head + model.d_head
        return int(self.kept_keys(model, tokens, new).sum()) * width * model.dtype.itemsize

    def read_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        """Keys that the same step reads: fewer than it keeps where a method only selects."""
        return self.kept_keys(model, tokens, new)


@dataclass(frozen=True)
class _Evicting(_Following, _Cache):
    """A method that gives up keys for good, after a pass, by what it saw in it.

    A subclass says in `_still` which keys stay; a key once given up does not come back.
    """

    stateful: ClassVar[bool] = True

    @abstractmethod
    def _still(
        self, attended: Attended, alive: Bool[Tensor, "batch kv_head key"]
    ) -> Bool[Tensor, "batch kv_head key"]:
        """Which keys are kept after this pass.

        Args:
            attended: the finished attention of this layer; given-up keys have no weight in it.
            alive: keys that are held during this pass, its own among them; padding is not held.
        """

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        assert attention.run is not None
        state = attention.run.state.setdefault(self, {})
        alive = self._alive(attention, state.get(attention.layer))
        attended = attend(hiding(attention, ~alive))
        state[attention.layer] = self._still(attended, alive) & alive
        return attended

    @staticmethod
    def _alive(
        attention: Attention, before: Bool[Tensor, "batch kv_head seen"] | None
    ) -> Bool[Tensor, "batch kv_head key"]:
        real = (attention.key_positions >= 0).to(attention.q.device)
        if real.ndim == 2:
            real = repeat(real, "b j -> b k j", k=attention.n_kv_heads)
        if before is None:
            return real
        fresh = attention.n_keys - before.shape[-1]
        if fresh < 0:
            raise HeadscopeError(
                f"Layer {attention.layer}: the cache holds fewer keys than it did; begin the "
                "sequence anew."
            )
        return pad(before, (0, fresh), value=True) & real


def hiding(attention: Attention, gone: Bool[Tensor, "batch kv_head key"]) -> Attention:
    """The attention without some keys of each KV head; itself where none that is real is gone."""
    real = attention.keys_by_head()[:, :: attention.group] >= 0
    gone = gone & real.to(gone.device)
    if not bool(gone.any()):
        return attention
    return attention.with_bias(gone.repeat_interleave(attention.group, dim=1), -torch.inf)
