"""From scores to roles: rules with written-down thresholds and sources, applied late."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.heads import label
from headscope.rules import Quantile, Rule, Threshold

if TYPE_CHECKING:
    from headscope.headmap import HeadMap

SURE = 0.975  # of resamples; as if a two-sided 95 % interval lay on one side of a threshold

_DEMOS = "convention of TransformerLens' head detector demos"
_QADA = "headscope's own cut-offs, on the scores after QAdA, arXiv 2502.09647"
_WAAD = "a fixed share, as in arXiv 2510.13554"

# In the order in which a head's primary role is chosen: what it does for the model before where
# it merely looks, narrow roles before wide ones.
RULES: dict[str, Rule] = {
    "retrieval": Rule(Threshold("retrieval", ">", 0.1), "Wu et al. 2024, arXiv 2404.15574"),
    "induction": Rule(Threshold("induction", ">", 0.4), _DEMOS),
    "duplicate_token": Rule(Threshold("duplicate_token", ">", 0.4), _DEMOS),
    "previous_token": Rule(Threshold("previous_token", ">", 0.4), _DEMOS),
    "contextual": Rule(
        Quantile("contextual", count=20),
        "Zhu et al. 2025, arXiv 2503.23306: as many as are steered there, of 672 heads and more",
    ),
    "razor_retrieval": Rule(
        Quantile("razor_induction", share=0.14, of="KV heads"),
        "Tang et al. 2024, arXiv 2407.15891",
        also=Quantile("echo", share=0.01, of="KV heads"),
        word="or",
    ),
    "copying": Rule(
        Threshold("copying", ">", 0.0),
        "headscope's own: the attended token has most of what is raised",
    ),
    "offset": Rule(
        Threshold("offset", ">", 0.4),
        "headscope's own: the convention for previous tokens, at any distance",
    ),
    # Neither rope_distance, which most heads of a model with RoPE have alike, nor
    # causal_mask_bias, which is about a model without its rotations, tells such heads apart.
    "positional": Rule(
        Quantile("offset", share=0.1),
        "headscope's own: over random tokens one distance is preferred for its place alone; not "
        "the measure of Hong et al. 2024, arXiv 2410.08703, which was not seen",
    ),
    "hidden_sink": Rule(
        Threshold("hidden_sinks", ">", 0.1),
        "headscope's own: on all of them together what ACT, arXiv 2406.15765, asks of one",
    ),
    "sink": Rule(
        Threshold("sink", ">", 0.3),
        "epsilon of Gu et al. 2024, arXiv 2410.10781, on the mean score",
    ),
    "streaming": Rule(
        Threshold("streaming", ">", 0.9), "headscope's own: at most a tenth of attention is lost"
    ),
    "always_local": Rule(Threshold("qada", "<", 0.01), _QADA),
    "always_long": Rule(Threshold("qada", ">", 0.99), _QADA),
    "far": Rule(
        Threshold("snapkv_far", ">=", 0.35),
        "a rule proposed for mlx-lm, pull request 1522; here among query heads",
        also=Quantile("snapkv_far", share=0.25),
    ),
    # Most heads of a small model have it, so that it says little of one that has another role.
    "basin": Rule(
        Threshold("basin", ">", 0.5),
        "headscope's own: the ends lie above the middle by half of the mean",
    ),
    "global": Rule(Quantile("distance", share=0.3), _WAAD),
    "local": Rule(Quantile("distance", share=0.3, lowest=True), _WAAD),
    "duo_full": Rule(
        Quantile("duo_onthefly", share=0.5, of="KV heads"),
        "Xiao et al. 2024, arXiv 2410.10819: the share kept whole with grouped queries, there by "
        "trained gates",
    ),
    "switching": Rule(
        Threshold("qada", ">=", 0.01), _QADA, also=Threshold("qada", "<=", 0.99)
    ),
}  # fmt: skip


def applicable(head_map: "HeadMap") -> dict[str, Rule]:
    """The rules all of whose scores a map has, in order."""
    return {
        role: rule
        for role, rule in RULES.items()
        if all(score in head_map.scores for score in rule.scores)
    }


def assign(head_map: "HeadMap") -> pd.DataFrame:
    """Roles of every head.

    Returns:
        One row a head: layer, head, kv_head, name, role (the primary one, "" if none), roles (all
        of them, joined by commas); of the primary role score, low, high, confidence (the share of
        bootstrap resamples of the prompts in which the head has it; NaN from a single prompt) and
        sure: whether that is at least 97.5 %.
    """
    rules = applicable(head_map)
    table = head_map.places()
    names = [label(place) for place in zip(table["layer"], table["head"], strict=True)]
    n = len(table)
    nothing = np.full((n, 1), np.nan)  # the last column: of heads without a role
    passes, columns = (
        [np.ones((n, 1), bool)],
        {name: [nothing] for name in ("score", "low", "high", "confidence")},
    )
    for rule in reversed(rules.values()):
        decision, score = head_map.decision(rule), head_map[rule.score]
        low, high = score.interval(head_map.info.seed)
        passes.insert(0, decision.passes.reshape(n, 1))
        found = {"score": score.mean(), "low": low, "high": high}
        for name, values in (found | {"confidence": decision.confidence}).items():
            columns[name].insert(0, values.reshape(n, 1))
    held = np.concatenate(passes, 1)
    first = held.argmax(1)
    roles = [*rules, ""]
    table["name"] = names
    table["role"] = [roles[i] for i in first]
    table["roles"] = [
        ",".join(role for role, has in zip(rules, row, strict=False) if has) for row in held
    ]
    for name, values in columns.items():
        table[name] = np.concatenate(values, 1)[np.arange(n), first]
    table["sure"] = table["confidence"] >= SURE
    return table
