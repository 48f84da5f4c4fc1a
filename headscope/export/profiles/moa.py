import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from headscope.errors import HeadscopeError
from headscope.export.moa import plan_of
from headscope.export.profiles.base import Grid, ProfileFormat, each, shaped
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.patterns.streaming import Streaming
from headscope.sparsity.profile import ProfiledModel, SparseProfile

_MOST_TOKENS = 10**7  # an alpha of more is refused where plans are read


@dataclass(frozen=True)
class Moa(ProfileFormat):
    """Spans alpha + beta N of query heads, in tokens of a text of N.

    `{"alphas": [layer][head], "betas": [layer][head]}`. A span holds the sink: streaming with a
    window of w tokens and growth g is alpha = sink + w, beta = g. Full is alpha = 0, beta = 1.

    Read in its code: N is the prompt and 1 024 tokens more; a span is cut to N, is 128 at least
    and is rounded up to blocks of 64; its first 64 tokens are the sink of every head, and the rest
    a band of blocks that ends with the query's own. All rows of a text have the window of the
    last.

    Source: MoA (Fu et al. 2024, arXiv 2406.14909), section 3; MoA/attention/cache_utils.py and
    MoA/kernels/mixture_of_attention.py of thu-nics/MoA at e224fe3.
    """

    paper = "Fu et al. 2024, arXiv 2406.14909"
    granularity = "query head"
    expresses = "full heads, and streaming heads with a sink of 64 and windows that may grow"
    loads = "MoA (e224fe3, set_mixture_of_attention), Llama and Vicuna, after its gqa_to_mha.py"
    loses = (
        "Spans are rounded up to blocks of 64 and to 128 tokens at least, N counts 1 024 tokens to "
        "come, and models with grouped KV heads have to be converted to one KV head a query head."
    )
    sink: ClassVar[int] = 64  # its loader gives it to every head

    def check(self, profile: SparseProfile) -> None:
        for head, rule in each(profile):
            if isinstance(rule, Full):
                continue
            if not isinstance(rule, Streaming):
                raise self._refusal(head, rule, "give the head a streaming rule, or leave it full.")
            if rule.sink != self.sink:
                raise self._refusal(head, rule, f"give it a sink of {self.sink}.")
            if rule.growth == 1 and rule.window + self.sink >= 0:
                raise self._refusal(head, rule, "it sees everything; leave it full.")
            if abs(rule.window) + self.sink > _MOST_TOKENS:
                raise self._refusal(head, rule, f"give it {_MOST_TOKENS:,} tokens at most.")

    def encode(self, profile: SparseProfile) -> Sequence[bytes]:
        spans = [
            [_span(rule) for rule in profile.of_layer(layer)] for layer in profile.model.layers
        ]
        alphas, betas = ([[span[i] for span in row] for row in spans] for i in (0, 1))
        return [(json.dumps({"alphas": alphas, "betas": betas}) + "\n").encode()]

    def decode(self, contents: Sequence[bytes], model: ProfiledModel) -> Grid:
        alphas, betas = plan_of(contents[0])
        shaped(alphas.tolist(), len(model.layers), model.n_heads, "query head")
        return [
            [self._rule(alpha, beta) for alpha, beta in zip(*row, strict=True)]
            for row in zip(alphas.tolist(), betas.tolist(), strict=True)
        ]

    def _rule(self, alpha: float, beta: float) -> Rule:
        if beta == 1 and alpha >= 0:
            return Full()
        if alpha != int(alpha):
            raise ValueError(f"an alpha is {alpha}, which is no whole number of tokens")
        try:
            return Streaming(self.sink, int(alpha) - self.sink, float(beta))
        except HeadscopeError as error:
            raise ValueError(f"a span is never longer than its sink (alpha {alpha:g})") from error


def _span(rule: Rule) -> tuple[int, float]:
    """(alpha, beta)."""
    if not isinstance(rule, Streaming):
        return 0, 1.0
    return rule.window + Moa.sink, float(rule.growth)
