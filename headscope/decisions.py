"""Which heads pass a rule, and how often they would on other draws of the prompts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headscope.rules import Measured, Rule
from headscope.scores import EDGES

if TYPE_CHECKING:
    from headscope.headmap import HeadMap


@dataclass(frozen=True, eq=False)
class Decision:
    """A rule applied to a map. Arrays are [layer, head].

    Attributes:
        passes: which heads have the role.
        confidence: the share of bootstrap resamples of the prompts in which a head passes, all
            heads being ranked anew in each where the rule ranks them; NaN from a single prompt,
            which says nothing of others.
        share: of all heads, those that pass, with the bounds of its 95 % interval; a rule that
            imposes how many pass leaves it no width.
    """

    passes: np.ndarray
    confidence: np.ndarray
    share: tuple[float, float, float]


def decide(head_map: "HeadMap", rule: Rule) -> Decision:
    """Apply a rule.

    Scores of different prompts are resampled with the same draws, which says nothing where they
    have nothing to do with each other, and keeps together what was measured on the same prompts.

    Raises:
        HeadscopeError: the map lacks one of its scores.
    """
    scores = {name: head_map[name] for name in rule.scores}

    def judged(values: dict[str, np.ndarray]) -> np.ndarray:
        return rule.passes(
            {
                name: Measured(values[name], head_map.n_kv_heads, score.kv_view)
                for name, score in scores.items()
            }
        )

    passes = judged({name: score.mean() for name, score in scores.items()})
    resamples = zip(
        *(score.resampled(head_map.info.seed) for score in scores.values()), strict=True
    )
    often, shares = np.zeros(passes.shape), []
    for drawn in resamples:
        passed = judged(dict(zip(scores, drawn, strict=True)))
        often += passed.sum(0)
        shares.append(passed.mean((1, 2)))
    every = np.concatenate(shares)
    low, high = np.quantile(every, EDGES)
    single = min(len(score.values) for score in scores.values()) < 2
    confidence = np.full(passes.shape, np.nan) if single else often / len(every)
    return Decision(passes, confidence, (float(passes.mean()), float(low), float(high)))
