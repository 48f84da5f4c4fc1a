from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.answering import greedy_answer
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.elastic import EIGHTHS, FROM_A_QUARTER_BELOW, Rules, plan
from headscope.probes.gradients import differentiated, need_gradients
from headscope.probes.influence import influence_by_distance
from headscope.probes.study import Bill, Work, _Study, mean_tokens
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.needle import Needle

_ALIKE = 1.1  # prompts whose lengths differ by less count as one length

Curves = Float[np.ndarray, "layer head _"]  # by range of distances


@dataclass(frozen=True)
class MoaSpan(_Study):
    """How much of what attention does to an answer a head does from afar.

    E_ij is the first-order change of the answer's negative log-likelihood if query i did not see
    key j (see `influence_by_distance`). A head that is cut to a span of S tokens and a sink loses
    L(S) = the sum of |E_ij| over i - j >= S and j >= sink, in shares of what all heads together
    lose with no span, so that every prompt weighs alike.

    score = mean of L(S) over the spans S = block, 2 block, ... up to the prompt's length,

    in [0, 1], and at most 1 over all heads together: each entry counts in proportion to its
    influence and to its distance in whole blocks. Heads that look far to no effect score 0, and so
    do heads whose effect comes from the nearest block. `moa_far` = L(block), in [0, 1], is the
    same without a say of how far. Both have one row a prompt.

    `moa_alpha` (tokens) and `moa_beta` are the paper's plan, in one row: spans S(N) = alpha + beta
    N of least loss whose mean density is at most `density` at every length N; one rule for each KV
    head if `grouped` (of its query heads' losses the largest counts), at most `rules` different
    ones in a layer. `moa_plan` = S(N) / N at the longest N, in [0, 1]. Two rules split a layer in
    two: a plan ranks heads within a layer at best, which is why it is not the score.

    Source: Fu et al. 2024, MoA, arXiv 2406.14909, and its code: E, rules and their grid for 2 048
    to 8 192 tokens in squares of 64, a sink of 64, the loss on the model's own answers, density
    0.5, two rules in a layer. headscope's own: the score; ranges of distances in the place of
    squares; shares in the place of nats, which answers that a model is unsure of have most of;
    lengths, block and sink of a small model; and the plan's loss, which is a sum over lengths,
    where the paper makes several plans and takes the best at a longer length. The paper's solver
    is commercial; `elastic.plan` is not, and bounds how far from the least it is.

    Attributes:
        own: whether the answer is the model's own greedy one, right or wrong, as in the paper, or
            the prompt's, which also stands in where a model says nothing.
        block: tokens of a range of distances; spans are whole blocks.
        sink: first tokens, which every rule keeps.
        alphas: of the rules, in shares of the longest prompt.
        betas: of the rules.
        density: of the plan, in shares of all causal pairs.
        rules: different ones in a layer of the plan, 1 or 2.
        grouped: whether the query heads of a KV head share a rule of the plan.
    """

    paper = "Fu et al. 2024, arXiv 2406.14909"
    answers = "differentiates the likelihood of an answer"
    scores: ClassVar[Mapping[str, str]] = {
        "moa_far": "share of all heads' influence that is beyond the sink and the nearest block",
        "moa_alpha": "tokens of the plan's span that do not grow with the prompt",
        "moa_beta": "share of the prompt that the plan's span grows by",
        "moa_plan": "the plan's span at the longest prompts, in shares of them",
    }
    prompts: PromptFamily = field(
        default_factory=lambda: Needle(samples=15, lengths=(256, 512, 1024))
    )
    own: bool = True
    block: int = 32
    sink: int = 32
    alphas: tuple[float, ...] = FROM_A_QUARTER_BELOW
    betas: tuple[float, ...] = EIGHTHS
    density: float = 0.5
    rules: int = 2
    grouped: bool = True

    def __post_init__(self) -> None:
        if self.block < 1 or self.sink < 0 or self.rules not in (1, 2):
            raise HeadscopeError(
                "The probe 'moa_span' needs a block of 1 token or more, a sink of 0 or more, and "
                "1 or 2 rules in a layer."
            )
        if not 0 < self.density <= 1:
            raise HeadscopeError(
                f"The probe 'moa_span' needs a density above 0 and at most 1, not {self.density:g}."
            )
        if not np.isfinite([*self.alphas, *self.betas]).all() or not (
            min(self.alphas, default=1) <= 0 == min(self.betas, default=1)
        ):
            raise HeadscopeError(
                "The probe 'moa_span' needs an alpha of 0 or less and a smallest beta of 0, so "
                "that a head may have no span at all."
            )

    def check_model(self, model: HeadModel) -> None:
        need_gradients(self.name, model)

    def check(self, prompt: Prompt) -> None:
        super().check(prompt)
        if len(prompt) < self.sink + 2 * self.block:
            raise HeadscopeError(
                f"the probe 'moa_span' compares spans of whole blocks of {self.block} tokens "
                f"behind a sink of {self.sink}, and a prompt has {len(prompt)}; use longer "
                "prompts, or a smaller block and sink."
            )

    def check_prompts(self, model: HeadModel, prompts: Sequence[Prompt]) -> None:
        shortest = min(len(prompt) for prompt in prompts)
        # Only the longest of a group of lengths counts, and keeps less; no answer adds to it.
        least = float(Rules((shortest,), self.block, self.sink).density[0, 0])
        if least > self.density:
            raise HeadscopeError(
                f"The probe 'moa_span' cannot plan for a density of {self.density:g}: the sink of "
                f"{self.sink} tokens alone keeps {least:.2f} of a prompt of {shortest}; use longer "
                "prompts, a smaller sink or more density."
            )

    def bill(self, model: HeadModel, prompts: Sequence[Prompt]) -> Bill:
        return Bill(
            len(prompts) * (2 if self.own else 1), len(prompts),
            mean_tokens(prompts, answered=True),
            "every attention pattern once more, and the activations of a whole pass in memory",
        )  # fmt: skip

    def study(
        self, model: HeadModel, prompts: Sequence[Prompt], work: Work
    ) -> Mapping[str, Float[Tensor, "row layer head"]]:
        def make(index: int) -> dict[str, np.ndarray]:
            return self._influence(model, prompts[index])

        parts = work.each(len(prompts), make)
        influence = [shares(part["influence"]) for part in parts]
        lengths = [int(part["length"][0]) for part in parts]
        rules, mean = self._by_length(influence, lengths)
        chosen = self._planned(rules, mean, model.n_heads // model.n_kv_heads)
        alpha, beta = np.moveaxis(np.array(rules.grid)[chosen], -1, 0)
        scores = {
            self.name: np.stack([lost_on_average(each) for each in influence]),
            "moa_far": np.stack([each[..., 1:].sum(-1) for each in influence]),
            "moa_alpha": alpha[None],
            "moa_beta": beta[None],
            "moa_plan": rules.share[chosen, -1][None],
        }
        return {name: torch.from_numpy(values) for name, values in scores.items()}

    def _influence(self, model: HeadModel, prompt: Prompt) -> dict[str, np.ndarray]:
        if self.own:
            said = greedy_answer(model, prompt).token_ids.tolist()
            prompt = replace(prompt, answer_ids=tuple(said) or prompt.answer_ids)
        layers = differentiated(model, prompt)
        found = torch.stack(
            [influence_by_distance(layer, self.block, self.sink).cpu() for layer in layers]
        )
        length = layers[0].attention.n_keys
        if not bool(found.isfinite().all()):
            raise HeadscopeError(
                f"The probe 'moa_span' stops: gradients of a prompt of {length} tokens are no "
                "numbers; open the model in float32 or bfloat16, or use shorter prompts. What was "
                "measured before is kept."
            )
        return {"influence": found.double().numpy(), "length": np.array([length])}

    def _by_length(
        self, influence: Sequence[Curves], lengths: Sequence[int]
    ) -> tuple[Rules, list[Curves]]:
        """Rules for the lengths that there are, and the mean influence at each."""
        found: list[list[int]] = []
        for index in np.argsort(lengths, kind="stable").tolist():
            if not found or lengths[index] > _ALIKE * lengths[found[-1][0]]:
                found.append([])
            found[-1].append(index)
        longest = tuple(lengths[indices[-1]] for indices in found)
        means = [_mean([influence[i] for i in indices]) for indices in found]
        rules = Rules(longest, self.block, self.sink, self.alphas, self.betas)
        return rules, means

    def _planned(self, rules: Rules, influence: list[Curves], group: int) -> np.ndarray:
        """A rule for each head: [layer, head]."""
        layers, heads = influence[0].shape[:2]
        lost = rules.lost([each.reshape(layers * heads, -1) for each in influence])
        shared = group if self.grouped else 1
        lost = lost.reshape(layers, heads // shared, shared, *lost.shape[1:]).max(2)
        return plan(lost, rules.density, self.density, self.rules).rules.repeat(shared, 1)


def shares(influence: Curves) -> Curves:
    """Of what all heads lose together with no span; all 0 where nothing is lost."""
    return influence / max(float(influence.sum()), np.finfo(float).tiny)


def lost_on_average(influence: Curves) -> Float[np.ndarray, "layer head"]:
    """Mean over spans of one block, of two, and so on up to all of them."""
    ranges = influence.shape[-1]
    return influence @ (np.arange(ranges) / ranges)


def _mean(parts: Sequence[Curves]) -> Curves:
    """Over prompts of about one length, whose last ranges of distances may be missing."""
    ranges = max(part.shape[-1] for part in parts)
    full = [np.pad(part, ((0, 0), (0, 0), (0, ranges - part.shape[-1]))) for part in parts]
    return np.mean(full, 0)
