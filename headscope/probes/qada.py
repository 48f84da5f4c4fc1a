import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern
from headscope.probes.base import Probe, Reading
from headscope.probes.gaussian import gaussian
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text

_LEAST = 1e-30  # of a row's attention; a float32 holds no less with all its digits


@dataclass(frozen=True)
class Qada(Probe):
    """How often a head needs more than the first tokens and a recent window.

    The bulk of row i are the visible keys j with j >= sinks and i - j >= local; all else that it
    sees is local, a learned sink included. A row is local if A_loc / (A_loc + A_bulk) >= tau, with
    A = sum exp(s_ij) over either part, and long otherwise. Over the rows that have a bulk:

    - score = share of long rows, by the exact bulk (the oracle);
    - qada_estimated = the same with A_bulk replaced by T exp(q·m + q S q / 2): as if the scores of
      its T keys were Gaussian. m and S are the mean and the covariance of those keys, rotated as
      they are scored and per kv_head, and q is scaled;
    - qada_false_negative = share of the long rows that the estimate calls local,
      qada_false_positive = share of the local rows that it calls long; 0 where there are none;
    - qada_correlation = Pearson correlation over rows of log A_bulk and its estimate, in [-1, 1]; 0
      where one of them does not vary.

    The others are in [0, 1]. A layer whose sliding window hides every bulk has only local rows: all
    its scores are 0.

    Source: after QAdA (Donhauser et al. 2025, arXiv 2502.09647), of which the idea, the Gaussian
    estimate and 16 sinks are known here. The rest stands in: tau = 0.6 and a window of 1 024 (256
    here, for 2 048 tokens) were not verified, nor which keys the moments are of. Here they are
    those of the row's own bulk: those of all keys of the prompt but the sinks made the estimate
    call 91 % of the rows of SmolLM2-135M's median head long, where 2 % are (one prompt). A
    soft-cap is left out of the estimate.

    Attributes:
        sinks: first tokens that are always local.
        local: tokens of the recent window, the query's own among them.
        tau: share of the attention on local keys from which on a row is local.
    """

    paper = "after Donhauser et al. 2025, arXiv 2502.09647"
    scores = {  # noqa: RUF012
        "qada_estimated": "share of queries that are long by the Gaussian estimate of the bulk",
        "qada_false_negative": "share of the long queries that the estimate calls local",
        "qada_false_positive": "share of the local queries that the estimate calls long",
        "qada_correlation": "correlation of the estimated and the exact bulk, in logarithms",
    }
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=4, lengths=(2048,)))
    sinks: int = 16
    local: int = 256
    tau: float = 0.6

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.local < 1 or not 0 < self.tau < 1:
            raise HeadscopeError(
                "the probe 'qada' needs sinks >= 0, local >= 1 and 0 < tau < 1, not "
                f"sinks={self.sinks}, local={self.local}, tau={self.tau}."
            )

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        first = self.sinks + self.local
        if len(prompt) <= first:
            raise HeadscopeError(
                f"the probe 'qada' needs more than sinks + local = {first} tokens, and there are "
                f"{len(prompt)}; use longer prompts or a smaller local."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention = attended.attention
        bulk = _Bulk(self.sinks, self.local)
        rows, reach = bulk.rows(attention)
        if len(rows) == 0:
            nothing = torch.zeros(attention.n_heads, device=attention.q.device)
            return dict.fromkeys(self.score_names(), nothing)
        share = attention.mass(bulk, rows)[0].clamp(_LEAST, 1)
        whole = attention.lse()[0, :, rows]
        exact = whole + torch.log(share)
        estimate = gaussian(attention, rows, reach, self.sinks)
        # In logarithms, since an estimate may be larger than any float.
        limit = whole + torch.log((1 - share).clamp(min=_LEAST)) + math.log(1 / self.tau - 1)
        long, called = exact > limit, estimate > limit
        return {
            "qada": long.float().mean(-1),
            "qada_estimated": called.float().mean(-1),
            "qada_false_negative": _rate(long & ~called, long),
            "qada_false_positive": _rate(~long & called, ~long),
            "qada_correlation": _correlation(exact, estimate),
        }


@dataclass(frozen=True)
class _Bulk(Pattern):
    """Keys behind the first `sinks` and at least `local` tokens before the query."""

    sinks: int
    local: int

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        return (key >= self.sinks) & (query - key >= self.local)

    def key_ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        stop = last - self.local + 1
        return [(self.sinks, stop)] if self.sinks < stop else []

    def rows(
        self, attention: Attention
    ) -> tuple[Int[Tensor, " row"], tuple[Int[Tensor, " row"], Int[Tensor, " row"]]]:
        """The rows of a prompt that have a bulk in this layer, and from where to where it goes."""
        query = attention.query_positions[0]
        first = torch.full_like(query, self.sinks)
        if attention.window is not None:
            first = torch.maximum(first, query - attention.window + 1)
        if attention.chunk is not None:
            first = torch.maximum(first, query // attention.chunk * attention.chunk)
        stop = query - self.local + 1
        rows = (stop > first).nonzero()[:, 0]
        return rows, (first[rows], stop[rows])


def _rate(
    some: Bool[Tensor, "head row"], among: Bool[Tensor, "head row"]
) -> Float[Tensor, " head"]:
    return some.float().sum(-1) / among.float().sum(-1).clamp(min=1)


def _correlation(
    x: Float[Tensor, "head row"], y: Float[Tensor, "head row"]
) -> Float[Tensor, " head"]:
    """Pearson's over rows; 0 where one of them does not vary."""
    x, y = (wide(v) - wide(v).mean(-1, keepdim=True) for v in (x, y))
    spread = (x.square().sum(-1) * y.square().sum(-1)).sqrt()
    return torch.where(spread > 0, (x * y).sum(-1) / spread.clamp(min=_LEAST), 0)
