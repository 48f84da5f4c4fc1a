from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, log
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import wide
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.base import Claim, Intervention, Phase, Site
from headscope.interventions.context_attention import (
    context_of,
    on_context,
    positions_in,
    token_ratios,
)
from headscope.interventions.spans import Span, checked_span, keys_in
from headscope.interventions.utilization_detector import UtilizationDetector
from headscope.prompts.base import Prompt
from headscope.prompts.documents import Documents
from headscope.run import Run
from headscope.stack import Again, Attend

if TYPE_CHECKING:
    from headscope.heads import Head
    from headscope.model import HeadModel


@dataclass(frozen=True)
class Dagcd(Intervention):
    """DAGCD: make tokens of the context likelier that attention says are being used.

    For each row that produces an answer token: p' ~ p + alpha H(p) / log|V| u, H in nats. u is a
    distribution over the distinct tokens t of the context, u_t ~ max(0, sum_h w_h ratio_h(t)) for
    those that the detector finds used and that are among the `top_rank` likeliest, and 0 for all
    others; ratio_h(t) is the mean attention of head h on t, of its sum over the context's tokens.
    A row whose likeliest token ends the answer is left as it is, as is one without such a token.

    Source: Huang et al. 2025, "Dynamic Attention-Guided Context Decoding for Mitigating Context
    Faithfulness Hallucinations in Large Language Models", arXiv 2501.01059, and its released code
    (uestc-huangyw/DAGCD), where w is divided by its sum, p' is not normalised, and line breaks and
    blanks count as ends. Headscope's own: a negative sum of ratios counts as 0, and ties with the
    last of the likeliest are in.

    Attributes:
        detector: trained on the same model.
        context: the name of a span, (start, stop) in tokens, or several; if left out, see
            `context_of`, which `prepared` asks.
        alpha: how much is added; 0 is a no-op. The paper takes 2 for base models, 4 for chat.
        top_rank: how many of the likeliest tokens may gain.
        token_ids: the prompt's, for passes from a cache that was filled out of sight; `prepared`
            notes them.
    """

    paper = "Huang et al. 2025, arXiv 2501.01059"
    site: ClassVar[Site] = "logits"
    phase: ClassVar[Phase] = "answer"
    claims: ClassVar[frozenset[Claim]] = frozenset({"logits"})
    files: ClassVar[Mapping[str, type[Any]]] = {"detector": UtilizationDetector}
    detector: UtilizationDetector
    context: Span | None = None
    alpha: float = 2.0
    top_rank: int = 10
    token_ids: tuple[int, ...] | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.detector, UtilizationDetector):
            raise HeadscopeError(
                "Dagcd needs detector=UtilizationDetector.train(model, prompts), or "
                "UtilizationDetector.load(path)."
            )
        if self.context is not None:
            object.__setattr__(self, "context", checked_span(self.context, "Dagcd"))
        if not isfinite(self.alpha) or self.alpha < 0:
            raise HeadscopeError(
                f"The alpha of Dagcd is a finite number from 0 up, not {self.alpha}."
            )
        if self.top_rank < 1:
            raise HeadscopeError(f"The top_rank of Dagcd is 1 or more, not {self.top_rank}.")

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        options = super().completed(options, model, seed)
        if options.get("detector") is not None:
            return options
        prompts = Documents(samples=64, seed=seed, split="tune").prompts(model.tokenizer)
        return {**options, "detector": UtilizationDetector.train(model, prompts, seed=seed)}

    def check(self, model: "HeadModel") -> None:
        self.detector.check(model)

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple[Intervention, Prompt]:
        context = context_of(prompt, self.context, "Dagcd")
        return replace(self, context=context, token_ids=prompt.token_ids), prompt

    @property
    def reads_prompt_alike(self) -> bool:
        return True

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        heads = [head for layer, head in self.detector.heads if layer == attention.layer]
        run = attention.run
        assert run is not None
        if not heads:
            return attended
        where = run.rows_in("answer", attention.query_positions)
        rows = where.any(0).nonzero()[:, 0]
        if len(rows):
            if self.context is None:
                raise HeadscopeError(
                    "Dagcd has to know where the context stands: pass context=(start, stop) in "
                    "tokens, or take method, prompt = method.prepared(model, prompt) first."
                )
            keys_in(attention, self.context, "Dagcd")  # refuses what is no range of the prompt
            ranges = checked_span(self.context, "Dagcd")
            assert not isinstance(ranges, str)
            positions = positions_in(ranges)
            seen = run.state.get(self)
            if seen is None or seen.step != run.step:
                tokens = self._tokens(attention, positions)
                seen = _Seen(run.step, attention.n_queries, rows, where[:, rows], tokens)
                run.state[self] = seen
            on = on_context(attended.attention, heads, rows, positions)
            for head, found in zip(heads, on.unbind(1), strict=True):
                seen.on[attention.layer, head] = found.to(seen.tokens.device)
        return attended

    def _tokens(self, attention: Attention, positions: list[int]) -> Int[Tensor, "batch position"]:
        run, at = attention.run, attention.query_positions
        assert run is not None
        if self.token_ids is not None:
            ids = torch.tensor(self.token_ids, device=at.device)[positions]
            return ids.expand(len(at), -1)
        slots = torch.arange(run.seen - attention.n_queries, run.seen, device=at.device)
        first = torch.where(at >= 0, slots - at, 0).amax(1)  # the slot of position 0
        index = first[:, None] + torch.tensor(positions, device=at.device)
        return run.token_ids.to(at.device).gather(1, index)

    def said(
        self, run: Run, logits: Float[Tensor, "batch kept vocab"], again: Again
    ) -> Float[Tensor, "batch kept vocab"]:
        seen: _Seen | None = run.state.pop(self, None)
        if seen is None or seen.step != run.step:
            return logits
        kept = seen.rows - (seen.queries - logits.shape[1])
        on = torch.stack([seen.on[head] for head in self.detector.heads], 1)
        joined = logits.clone()
        for b, tokens in enumerate(seen.tokens):
            mine = ((kept >= 0) & seen.where[b]).nonzero()[:, 0]
            if len(mine):
                ids, ratios = token_ratios(wide(on[b][:, mine]), tokens)
                at = kept[mine]
                rows = self._joined(wide(logits[b, at]), ids, ratios)
                joined[b, at] = rows.to(joined.dtype)
        return joined

    def _joined(
        self,
        logits: Float[Tensor, "row vocab"],
        ids: Int[Tensor, " distinct"],
        ratios: Float[Tensor, "head row distinct"],
    ) -> Float[Tensor, "row vocab"]:
        ids, ratios = ids.to(logits.device), ratios.to(logits)
        total = logits.logsumexp(-1, keepdim=True)
        logp = logits - total
        uncertain = torch.special.entr(logp.exp()).sum(-1, keepdim=True) / log(logits.shape[-1])
        score = torch.einsum("hrt,h->rt", ratios, self.detector.weights.to(ratios))
        likely = logits.topk(min(self.top_rank, logits.shape[-1])).values[:, -1:]
        used = (score + self.detector.bias > 0) & (logits[:, ids] >= likely)
        stops = torch.tensor(self.detector.facts.stop_ids, dtype=torch.long, device=logits.device)
        used &= ~torch.isin(logits.argmax(-1, keepdim=True), stops)
        score = score.clamp(min=0) * used
        u = score / score.sum(-1, keepdim=True).clamp(min=torch.finfo(score.dtype).tiny)
        added = self.alpha * uncertain * u
        more = torch.logaddexp(logp[:, ids], added.log()) + total
        return logits.index_copy(1, ids, torch.where(added > 0, more, logits[:, ids]))

    def reorder(self, run: Run, index: Int[Tensor, " new_batch"]) -> None:
        """What a pass saw is used at its end, so that nothing has to follow."""

    def crop(self, run: Run, length: int) -> None:
        """As in `reorder`."""


@dataclass(eq=False)
class _Seen:
    """What the rows of one pass gave to the context."""

    step: int
    queries: int  # of the pass
    rows: Int[Tensor, " row"]
    where: Bool[Tensor, "batch row"]  # which of them are answers, in each sequence
    tokens: Int[Tensor, "batch position"]
    on: "dict[Head, Float[Tensor, 'batch row position']]" = field(default_factory=dict)
