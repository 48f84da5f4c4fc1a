from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from headscope.attention import Attention
from headscope.blocks import wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.base import Claim, Intervention, Site
from headscope.interventions.envelopes import covering
from headscope.run import Run
from headscope.stack import Again, Attend

if TYPE_CHECKING:
    from headscope.backends.rotary import Rotary
    from headscope.model import HeadModel

MULTIPLES = (1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class AttentionBuckets(Intervention):
    """Read every token once for each of several RoPE bases, and join what is said.

    logits = sum_b w_b logits_b, with w = softmax over the bases b of max_v logits_b[v], for each
    row. The rotation of one base lets logits of attention rise and fall with distance; where it has
    a trough another base may have a peak. Each base has KV caches of its own, so that its keys and
    values are what that base alone would make; all read the same tokens. It costs as many passes as
    there are bases, and observers see the layers of each, in the order of `bases`.

    The caller's cache belongs to the first base. Keys lie in caches as the model rotates them, and
    are turned from its base to another in each call. On the nnsight backend a trace sees the first
    base alone.

    Source: Chen et al. 2023, "Fortify the Shortest Stave in Attention", arXiv 2312.04455; the rule
    that joins logits is that of the released code (AlibabaResearch/DAMO-ConvAI), where the paper
    speaks of probabilities. There the bases are 10000 to 25000 or more, for models trained at
    10000. Multiples of a model's own base are headscope's.

    Attributes:
        bases: each above 1; the model's own times 1, 1.25, 1.5 and 2 if left out. `search` finds
            others. The model's own alone is a no-op.
    """

    paper = "Chen et al. 2023, arXiv 2312.04455"
    site: ClassVar[Site] = "logits"
    stateful: ClassVar[bool] = True
    claims: ClassVar[frozenset[Claim]] = frozenset({"logits", "positions"})
    bases: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.bases is None:
            return
        given = [self.bases] if isinstance(self.bases, int | float) else self.bases
        bases = tuple(float(base) for base in given)
        if not bases or any(not isfinite(base) or base <= 1 for base in bases):
            raise HeadscopeError(
                f"The bases of AttentionBuckets are finite numbers above 1, one at least, not "
                f"{list(bases)}; models are trained with 10000 or more."
            )
        if len(set(bases)) < len(bases):
            raise HeadscopeError("AttentionBuckets has a base twice; give each once.")
        object.__setattr__(self, "bases", bases)

    @classmethod
    def search(
        cls,
        model: "HeadModel",
        count: int = 4,
        multiples: Sequence[float] = tuple(1 + i / 20 for i in range(31)),
        reach: int = 1024,
    ) -> "AttentionBuckets":
        """Bases whose waves fill each other's troughs; see `envelopes.covering`.

        Args:
            count: how many, the model's own among them.
            multiples: of the model's own base, to choose the others among.
            reach: the largest distance that is looked at, in tokens.

        Raises:
            HeadscopeError: the model does not have one base, or there is nothing to choose.
        """
        cls().check(model)
        rotary, own = _one_base(model)
        others = [multiple * own for multiple in multiples if multiple != 1]
        return cls(covering(rotary.tables, own, others, count, reach, model.device))

    def check(self, model: "HeadModel") -> None:
        rotaries = [found.rotary for found in model.backend.layers]
        if all(rotary is None for rotary in rotaries):
            raise HeadscopeError(
                f"AttentionBuckets changes the base of rotary positions (RoPE), and {model.name} "
                "has none."
            )
        for layer, rotary in zip(model.layers, rotaries, strict=True):
            if isinstance(rotary, str) or (rotary is not None and rotary.base is None):
                why = rotary if isinstance(rotary, str) else "its config does not say its base"
                raise HeadscopeError(
                    f"AttentionBuckets cannot change the rotation of {model.name}, layer {layer}: "
                    f"{why}."
                )
        if self.bases is not None:
            _one_base(model)

    @property
    def stepwise(self) -> bool:
        """The caches of other bases begin and go on with a sequence, and cannot join a prefix."""
        return True

    def begin(self, run: Run) -> None:
        if run.phase != "prefill":
            raise HeadscopeError(
                "AttentionBuckets has to see a sequence from its first token on, and this cache "
                "holds some already; begin with a new cache within the scope."
            )

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        rope, run = attention.rope, attention.run
        if rope is None:
            return attend(attention)
        assert run is not None
        assert rope.base is not None  # check has refused it
        state = run.state.get(self)
        number = state if isinstance(state, int) else 0
        base = rope.base * MULTIPLES[number] if self.bases is None else self.bases[number]
        if base == rope.base:
            return attend(attention)

        def turned(x: Tensor, positions: Int[Tensor, "..."]) -> Tensor:
            # Wide in between: two roundings would be more than the model makes.
            plain = rope.unrotate(wide(x), positions)
            return rope.rotate(plain, positions, base).to(x.dtype)

        q = turned(attention.q, attention.query_positions)
        k = turned(attention.k, attention.key_positions)
        return attend(attention.with_q(q).with_k(k))

    def said(
        self, run: Run, logits: Float[Tensor, "batch kept vocab"], again: Again
    ) -> Float[Tensor, "batch kept vocab"]:
        others = len(self.bases or MULTIPLES) - 1
        if not others:
            return logits
        caches: list[Cache] = run.state.setdefault(self, [DynamicCache() for _ in range(others)])
        joined = wide(logits)
        weight = joined.amax(-1, keepdim=True)  # log of the sum of exponentials so far
        for number, cache in enumerate(caches, 1):
            other = wide(again(cache, {self: number}))
            if cache.get_seq_length() not in (0, run.seen):  # 0: the caller keeps no cache
                raise HeadscopeError(
                    "A pass of this sequence was interrupted, and its caches have different "
                    "lengths; begin it again with a new cache."
                )
            peak = other.amax(-1, keepdim=True)
            weight = torch.logaddexp(weight, peak)
            joined = torch.lerp(joined, other, (peak - weight).exp())
        return joined.to(logits.dtype)

    def reorder(self, run: Run, index: Int[Tensor, " new_batch"]) -> None:
        for cache in self._caches(run):
            cache.reorder_cache(index)  # pyright: ignore[reportArgumentType]

    def crop(self, run: Run, length: int) -> None:
        for cache in self._caches(run):
            cache.crop(length - cache.get_seq_length())

    def _caches(self, run: Run) -> list[Any]:
        """Those of the other bases; a pass of another base has none of its own to look after."""
        state = run.state.get(self)
        return state if isinstance(state, list) else []


def _one_base(model: "HeadModel") -> tuple["Rotary", float]:
    """The rotation of a model, and its base.

    Raises:
        HeadscopeError: its layers have different ones.
    """
    rotaries = [found.rotary for found in model.backend.layers if found.rotary is not None]
    bases = {rotary.base: rotary for rotary in rotaries if not isinstance(rotary, str)}
    if len(bases) > 1:
        raise HeadscopeError(
            f"The layers of {model.name} have several bases ({', '.join(f'{b:g}' for b in bases)}),"
            " and no list of bases is right for all; leave bases= out, for multiples of each."
        )
    ((base, rotary),) = bases.items()
    assert base is not None  # check has refused it
    return rotary, base
