"""Attention spans that grow with the prompt, and the choice of one for each head."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from headscope.knapsack import Knapsack

EIGHTHS = tuple(eighth / 8 for eighth in range(9))
# The paper's grid: -2 048 to 8 192 tokens in steps of 1 024, where the longest prompts have 8 192.
FROM_A_QUARTER_BELOW = (-2 / 8, -1 / 8, *EIGHTHS)

_NEARBY = (1.0, 0.5, 0.8, 1.25, 2.0)  # prices to look at, beside the best known
_ROUNDS = 60
_CLOSE = 1e-3  # of what a plan loses: as near to the least as it has to come


@dataclass(frozen=True, eq=False)
class Rules:
    """Spans S(N) = alpha + beta N in tokens, cut to [0, N] and rounded to blocks, beside a sink.

    A query sees the S tokens that end with itself, and the first `sink` ones. Rules that come to
    the same spans at all lengths are one.

    Attributes:
        lengths: N, in tokens, ascending.
        block: tokens.
        sink: first tokens that every query sees.
        alphas: in shares of the longest N.
        betas: shares.
    """

    lengths: tuple[int, ...]
    block: int
    sink: int
    alphas: tuple[float, ...] = FROM_A_QUARTER_BELOW
    betas: tuple[float, ...] = EIGHTHS

    @cached_property
    def grid(self) -> list[tuple[int, float]]:
        """(alpha in tokens, beta) of each rule, the shortest spans first."""
        found: dict[tuple[int, ...], tuple[int, float]] = {}
        for alpha in (round(a * self.lengths[-1] / self.block) * self.block for a in self.alphas):
            for beta in self.betas:
                spans = tuple(self._span(alpha, beta, n) for n in self.lengths)
                simplest = found.get(spans)
                if simplest is None or abs(alpha) < abs(simplest[0]):
                    found[spans] = (alpha, beta)
        return [found[spans] for spans in sorted(found)]

    def _span(self, alpha: int, beta: float, length: int) -> int:
        """In blocks."""
        return min(max(round((alpha + beta * length) / self.block), 0), -(-length // self.block))

    @cached_property
    def spans(self) -> Int[np.ndarray, "rule length"]:
        """In blocks."""
        return np.array([[self._span(*rule, n) for n in self.lengths] for rule in self.grid])

    @cached_property
    def share(self) -> Float[np.ndarray, "rule length"]:
        """S(N) / N, in [0, 1]."""
        return np.minimum(self.spans * self.block / np.array(self.lengths), 1)

    @cached_property
    def density(self) -> Float[np.ndarray, "rule length"]:
        """Share of all causal pairs that a rule keeps."""
        found = np.empty(self.spans.shape)
        for (rule, at), span in np.ndenumerate(self.spans * self.block):
            seen = np.arange(1, self.lengths[at] + 1)
            kept = np.minimum(seen, span + np.minimum(self.sink, np.maximum(seen - span, 0)))
            found[rule, at] = kept.sum() / seen.sum()
        return found

    def lost(
        self, influence: Sequence[Float[np.ndarray, "head _"]]
    ) -> Float[np.ndarray, "head rule length"]:
        """The influence outside each rule.

        Args:
            influence: for each length, by range of distances of `block` tokens.
        """
        columns = []
        for at, of_length in enumerate(influence):
            beyond = np.pad(of_length[:, ::-1].cumsum(1)[:, ::-1], ((0, 0), (0, 1)))
            columns.append(beyond[:, np.minimum(self.spans[:, at], of_length.shape[1])])
        return np.stack(columns, -1)


@dataclass(frozen=True, eq=False)
class Plan:
    """A rule for each head.

    Attributes:
        rules: indices into a grid.
        lost: influence outside the rules, summed over lengths.
        bound: no plan within the same budget loses less.
    """

    rules: Int[np.ndarray, "layer head"]
    lost: float
    bound: float


def plan(
    lost: Float[np.ndarray, "layer head rule length"],
    density: Float[np.ndarray, "rule length"],
    budget: float,
    limit: int = 2,
) -> Plan:
    """Choose rules for all heads: the least loss, summed over lengths, whose mean density is
    within the budget at every length, with at most `limit` (1 or 2) different rules in a layer.

    By columns: at given prices of density the best choice for a layer is found by trying all
    pairs of rules. A linear programme over the choices found so far sets the prices, until no
    layer has a better choice; the Lagrangian dual at the prices is the bound. A mixed integer
    programme then picks one of its choices for each layer (HiGHS). What is lost is at the bound
    but for about as many layers as there are lengths, which the linear programme mixes.

    Raises:
        ValueError: not even the shortest spans, rule 0, fit into the budget.
    """
    if (density[0] > budget).any():
        raise ValueError("the shortest spans do not fit into the budget")
    layers, heads = lost.shape[:2]
    loss = lost.sum(-1)
    unit = max(float(loss.max(-1).sum()) / (100 * layers), np.finfo(float).tiny)
    loss = loss / unit  # solvers have absolute tolerances
    known = _Choices(loss, density)
    for layer in range(layers):
        for rule in range(len(density)):
            known.add(layer, np.full(heads, rule))
    bound = 0.0
    for _ in range(_ROUNDS):
        prices, worth = known.prices(budget)
        dual, better = -budget * float(prices.sum()), False
        for factor in _NEARBY:
            priced = density @ prices * factor / (heads * layers)
            for layer in range(layers):
                best, value = _best(loss[layer] + priced, limit)
                if factor == 1:
                    dual += value
                new = known.add(layer, best)
                better |= factor == 1 and new and value < worth[layer] - 1e-6
        bound = max(bound, dual)
        if not better:
            break
    rules = known.picked(budget)
    total = float(loss[np.arange(layers)[:, None], np.arange(heads), rules].sum())
    return Plan(rules, total * unit, min(bound, total) * unit)


def _best(total: Float[np.ndarray, "head rule"], limit: int) -> tuple[np.ndarray, float]:
    """The best rule for each head of a layer that has one or two of them, and what it comes to."""
    if limit == 1:
        best = int(total.sum(0).argmin())
        return np.full(len(total), best), float(total[:, best].sum())
    joint = np.minimum(total[:, :, None], total[:, None, :]).sum(0)
    one, other = np.unravel_index(int(joint.argmin()), joint.shape)
    return np.where(total[:, one] <= total[:, other], one, other), float(joint.min())


class _Choices:
    """What layers may choose: rules for all of a layer's heads, each with its loss and density."""

    def __init__(
        self, loss: Float[np.ndarray, "layer head rule"], density: Float[np.ndarray, "rule length"]
    ) -> None:
        self.loss, self.density = loss, density
        self.seen: dict[tuple[int, bytes], np.ndarray] = {}

    def add(self, layer: int, rules: Int[np.ndarray, " head"]) -> bool:
        """Whether it was not there yet."""
        before = len(self.seen)
        self.seen.setdefault((layer, rules.astype(np.int64).tobytes()), rules)
        return len(self.seen) > before

    def _programme(self, budget: float) -> Knapsack:
        layers, heads = self.loss.shape[:2]
        place = np.array([layer for layer, _ in self.seen])
        rules = np.stack(list(self.seen.values()))
        loss = self.loss[place[:, None], np.arange(heads), rules].sum(1)
        weight = self.density[rules].mean(1).T / layers
        return Knapsack(loss, place, weight, np.full(len(weight), budget))

    def prices(self, budget: float) -> tuple[np.ndarray, np.ndarray]:
        """Of density at each length, and what each layer's best choice comes to at them."""
        return self._programme(budget).prices()

    def picked(self, budget: float) -> Int[np.ndarray, "layer head"]:
        done = self._programme(budget).solved(_CLOSE)
        assert done is not None  # the shortest spans fit
        every = list(self.seen.values())
        return np.stack([every[choice] for choice in done.choices])
