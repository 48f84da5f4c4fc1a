from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.text import Text


@dataclass(frozen=True)
class HiddenSinks(Probe):
    """Attention on sinks beyond the first token.

    S = {k > 0 : mean over the rows i that see k of A[i, k] > threshold}, found for each head on
    each prompt; hidden_sinks = mean over all rows of sum_{k in S} A[i, k], in [0, 1];
    hidden_sink_count = |S|, in tokens.

    A key that few rows see has a large mean by chance, so at least `min_rows` of them have to see
    it; a window shorter than that leaves S empty.

    Source: the column rule of ACT (Yu et al. 2024, arXiv 2406.15765) with the threshold of its
    code, which drops the first sink that it finds; here the first token is dropped. `min_rows` and
    the mass as a score are headscope's own.

    Attributes:
        threshold: of a column's mean attention, above which its key is a sink.
        min_rows: rows that have to see a key before it may be a sink.
    """

    paper = "after Yu et al. 2024, arXiv 2406.15765"
    scores = {"hidden_sink_count": "number of sinks beyond the first token"}  # noqa: RUF012
    cost = "all rows"
    prompts: PromptFamily = field(default_factory=lambda: Text(samples=16))
    threshold: float = 0.1
    min_rows: int = 64

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) <= self.min_rows:
            raise HeadscopeError(
                f"the probe 'hidden_sinks' needs more than min_rows = {self.min_rows} tokens, and "
                f"there are {len(prompt)}; use longer prompts or fewer rows."
            )

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        attention, sweep = attended.attention, reading.sweep(attended)
        sinks = (sweep.column_means > self.threshold) & (sweep.viewers >= self.min_rows)
        sinks &= attention.keys_by_head() > 0
        on_sinks = (sweep.column_sums * sinks)[0].sum(-1)
        return {
            "hidden_sinks": on_sinks / attention.n_queries,
            "hidden_sink_count": sinks[0].sum(-1).to(on_sinks),
        }
