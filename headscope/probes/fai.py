from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class Fai(Probe):
    """Future attention influence: what a token receives from those that follow at some distance.

    FAI_s = mean over t in [s + lo, s + hi] of A[t, s]; score = mean of FAI_s over every token s
    whose whole horizon lies inside the prompt; in [0, 1], and near 1 / n where attention is
    uniform over n tokens. Where a sliding window hides s from t, A[t, s] counts as 0.

    Source: arXiv 2510.13554, where FAI_s is taken from the mean map of the heads of longest span
    over the rows of a response, with a horizon that is cut at the end; a score of each head by
    itself is headscope's own. lo and hi are those of a port; the paper's were not verified.

    Attributes:
        lo, hi: the nearest and the furthest distance that counts, in tokens.
    """

    paper = "after arXiv 2510.13554"
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))
    lo: int = 10
    hi: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.lo <= self.hi:
            raise HeadscopeError(
                "the probe 'fai' needs a horizon with 0 <= lo <= hi, not "
                f"lo={self.lo}, hi={self.hi}."
            )

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) <= self.hi:
            raise HeadscopeError(
                f"the probe 'fai' needs more than hi = {self.hi} tokens, and there are "
                f"{len(prompt)}; use longer prompts or a smaller hi."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        n_tokens = attended.attention.n_queries - self.hi
        horizon = _Horizon(self.lo, self.hi, n_tokens)
        received = attended.attention.mass(horizon, range(self.lo, attended.attention.n_queries))
        return {"fai": received[0].sum(-1) / (n_tokens * (self.hi - self.lo + 1))}


@dataclass(frozen=True)
class _Horizon(Pattern):
    """lo <= query - key <= hi, for the first `stop` keys."""

    lo: int
    hi: int
    stop: int

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        distance = query - key
        return (distance >= self.lo) & (distance <= self.hi) & (key < self.stop)

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        start, stop = max(first - self.hi, 0), min(last - self.lo + 1, self.stop)
        return [(start, stop)] if start < stop else []
