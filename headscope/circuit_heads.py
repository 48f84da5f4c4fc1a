"""The heads of one task's circuit, by patching each alone."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from headscope.errors import HeadscopeError
from headscope.evals.statistics import benjamini_hochberg, check_enough, sign_flip_p
from headscope.heads import Head

_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Circuit:
    """The heads of one task: those that, patched alone, change the answer the right way.

    By default a head is one if its effect is positive and its change differs from 0 at a false
    discovery rate of `level` (two-sided sign flips over pairs, Benjamini-Hochberg over heads).
    With `top`, the so many heads with the largest effects, whatever their sign.

    Attributes:
        heads: all that were patched.
        effects: by pair; see `headscope.patched.Patched.effects`.
        changes: by pair, in nats.
        top: how many heads; None for those that pass the test.
    """

    task: str
    heads: tuple[Head, ...]
    effects: Float[np.ndarray, "pair head"]
    changes: Float[np.ndarray, "pair head"]
    top: int | None = None
    level: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_enough(len(self.effects))
        if self.top is not None and not 1 <= self.top <= len(self.heads):
            raise HeadscopeError(
                f"A circuit of {len(self.heads)} heads has no top {self.top}; ask for 1 to "
                f"{len(self.heads)}."
            )
        if not 0 < self.level < 1:
            raise HeadscopeError(
                f"A false discovery rate lies between 0 and 1, as 0.05 does; not {self.level:g}."
            )

    @cached_property
    def q(self) -> Float[np.ndarray, " head"]:
        """Of each head's change: sign flips over pairs, Benjamini-Hochberg over heads."""
        return benjamini_hochberg(np.array([sign_flip_p(c, self.seed) for c in self.changes.T]))

    @cached_property
    def members(self) -> Bool[np.ndarray, " head"]:
        """Which heads are in the circuit."""
        effects = self.effects.mean(0)
        if self.top is None:
            return (effects > 0) & (self.q <= self.level)
        order = sorted(range(len(self.heads)), key=lambda i: (-effects[i], self.heads[i]))
        chosen = np.zeros(len(self.heads), bool)
        chosen[order[: self.top]] = True
        return chosen

    @property
    def found(self) -> tuple[Head, ...]:
        """The heads in the circuit, layer by layer."""
        return tuple(sorted(h for h, is_in in zip(self.heads, self.members, strict=True) if is_in))

    def resampled(self, rng: np.random.Generator) -> Bool[np.ndarray, "resample head"]:
        """Circuits of as many heads from pairs drawn with replacement.

        Heads are ranked by their mean effect where `top` chose them, and else by its t.
        """
        n = len(self.effects)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
        rank = counts @ self.effects / n
        if self.top is None:
            spread = np.sqrt(np.maximum(counts @ self.effects**2 / n - rank**2, 0))
            # A head that does nothing on any pair has no t; any tiny spread keeps it at 0.
            rank = rank / np.maximum(spread, 1e-9)
        size = int(self.members.sum())
        best = np.argsort(-rank, axis=1, kind="stable")[:, :size]
        drawn = np.zeros(rank.shape, bool)
        np.put_along_axis(drawn, best, True, axis=1)
        return drawn
