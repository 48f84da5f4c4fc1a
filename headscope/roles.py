"""From scores to roles: rules with written-down thresholds, applied late."""

from dataclasses import dataclass

import pandas as pd

from headscope.heads import label


@dataclass(frozen=True)
class Rule:
    """A head has the role if its score is above the threshold."""

    score: str
    threshold: float
    source: str


# In the order in which a head's primary role is chosen: what it does for the model before where
# it merely looks.
RULES: dict[str, Rule] = {
    "retrieval": Rule("retrieval", 0.1, "Wu et al. 2024, arXiv 2404.15574"),
    "induction": Rule("induction", 0.4, "convention of TransformerLens' head detector demos"),
    "duplicate_token": Rule(
        "duplicate_token", 0.4, "convention of TransformerLens' head detector demos"
    ),
    "previous_token": Rule(
        "previous_token", 0.4, "convention of TransformerLens' head detector demos"
    ),
    "sink": Rule("sink", 0.3, "epsilon of Gu et al. 2024, arXiv 2410.10781, on the mean score"),
    "streaming": Rule("streaming", 0.9, "headscope's own: at most a tenth of attention is lost"),
}


def assign(table: pd.DataFrame) -> pd.DataFrame:
    """Roles of every head.

    Args:
        table: `HeadMap.to_pandas()`.

    Returns:
        One row a head: layer, head, kv_head, name, role (the primary one, "" if none), roles (all
        of them, joined by commas), score, low, high (of the primary role), and sure: whether the
        whole interval lies above the threshold.
    """
    rows = []
    for head in table.to_dict("records"):
        passed = [
            role
            for role, rule in RULES.items()
            if rule.score in head and head[rule.score] > rule.threshold
        ]
        row = {key: head[key] for key in ("layer", "head", "kv_head")}
        row |= {
            "name": label((int(head["layer"]), int(head["head"]))),
            "role": passed[0] if passed else "",
            "roles": ",".join(passed),
        }
        if passed:
            rule = RULES[passed[0]]
            low, high = head[f"{rule.score}.low"], head[f"{rule.score}.high"]
            row |= {"score": head[rule.score], "low": low, "high": high}
            row["sure"] = bool(low > rule.threshold)
        else:
            row |= {"score": float("nan"), "low": float("nan"), "high": float("nan"), "sure": False}
        rows.append(row)
    return pd.DataFrame(rows)
