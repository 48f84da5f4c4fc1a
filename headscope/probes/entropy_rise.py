from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.patterns.base import Pattern
from headscope.probes.base import Probe, Reading
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.documents import Documents
from headscope.stack import Attend


@dataclass(frozen=True)
class EntropyRise(Probe):
    """How much wider a head looks when documents were encoded without seeing each other.

    Two passes over one prompt: the model's own, and one in which every document of it sees only
    itself and what stands before the first (what stands between two goes with the earlier one);
    what follows the last document sees all. With H_i the entropy of row i in nats, a learned sink
    counting as an outcome:

    score = mean of H_i over the question's rows in the second pass less that in the first, in nats;
    positive where the head spreads wider, of either sign, 0 in the first layer's heads.

    Source: parallel context encoding, Zhang et al. 2024, arXiv 2412.16545, who find that the
    entropy of attention rises under it and performance falls. A number per head is headscope's
    own. Positions here run on through all documents, where the paper lets them share the same
    ones: what rises is due to what documents saw, not to where they stood.
    """

    paper = "after Zhang et al. 2024, arXiv 2412.16545"
    cost = "own pass"
    alters = True
    spans = ("doc_0", "doc_1", "question")
    prompts: PromptFamily = field(default_factory=lambda: Documents(samples=8))

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if prompt.span("question")[0] < max(stop for _, stop in prompt.numbered("doc")):
            raise HeadscopeError(
                "the probe 'entropy_rise' reads a question that follows all documents; put the "
                "span 'question' behind them."
            )

    @torch.no_grad()
    def read(self, model: HeadModel, prompt: Prompt) -> Mapping[str, Float[Tensor, "layer head"]]:
        ids = torch.tensor(prompt.token_ids, device=model.device)
        reading = Reading(prompt, model, ids, ids[:0], ids[:0])
        apart = _Apart.of(prompt)

        def restricted(attention: Attention, attend: Attend) -> Attended:
            return attend(attention.with_pattern(apart))

        plain = self._pass(model, reading)
        with model.entered(restricted):
            return {self.name: self._pass(model, reading) - plain}

    def _pass(self, model: HeadModel, reading: Reading) -> Float[Tensor, "layer head"]:
        layers: list[Tensor] = []

        def observe(attended: Attended) -> None:
            layers.append(self.measure(attended, reading)[self.name].cpu())

        with model.observed(observe):
            model.forward(reading.token_ids[None], last=1)
        return torch.stack(layers)

    def measure(self, attended: Attended, reading: Reading) -> Mapping[str, Float[Tensor, " head"]]:
        """The mean entropy of the question's rows in one pass, of which `read` takes two."""
        rows = range(*reading.prompt.span("question"))
        return {self.name: attended.attention.row_stats(queries=rows).entropy[0].mean(-1)}


@dataclass(frozen=True)
class _Apart(Pattern):
    """Documents see themselves and what precedes them all; what follows them all sees everything.

    Document m begins at edges[m] and ends where the next begins, the last one at edges[-1].
    """

    edges: tuple[int, ...]

    @classmethod
    def of(cls, prompt: Prompt) -> "_Apart":
        documents = sorted(prompt.numbered("doc"))
        return cls((*(start for start, _ in documents), documents[-1][1]))

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        edges = torch.tensor(self.edges, device=query.device)
        mine, its = (torch.bucketize(x, edges, right=True) for x in (query, key))
        return (its == 0) | (its == mine) | (mine == len(self.edges))
