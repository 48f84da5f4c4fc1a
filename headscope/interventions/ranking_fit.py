"""A logistic regression that ranks the parts of prompts, its penalty chosen by held-out prompts."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

FOLDS = 5
# Whether features are standardised, and C, the inverse strength of the L2 penalty. Features as they
# are lie near 1 / (tokens of the context), so that an equal penalty has a far larger C.
GRID = (
    *((True, c) for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)),
    *((False, c) for c in (1e2, 1e3, 1e4, 1e5, 1e6)),
)


def within_auc(scores: Sequence[float] | Float[np.ndarray, " sentence"], relevant: int) -> float:
    """The share of the other sentences of a prompt that score below the relevant one; ties count
    half."""
    values = np.asarray(scores, np.float64)
    others = np.delete(values, relevant)
    return float(((others < values[relevant]) + 0.5 * (others == values[relevant])).mean())


def fitted(
    features: Sequence[Float[np.ndarray, "_ feature"]],
    relevant: Sequence[int],
    scaled: bool,
    c: float,
) -> Any:
    """A scikit-learn pipeline fitted to all parts of some prompts.

    Args:
        relevant: which part of each prompt is.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=c, class_weight="balanced", max_iter=10_000)
    steps = (StandardScaler(), regression) if scaled else (regression,)
    return make_pipeline(*steps).fit(np.concatenate(features), _labels(features, relevant))


def _labels(
    features: Sequence[Float[np.ndarray, "_ feature"]], relevant: Sequence[int]
) -> Bool[np.ndarray, " label"]:
    return np.concatenate(
        [np.arange(len(each)) == needle for each, needle in zip(features, relevant, strict=True)]
    )


def chosen(
    features: Sequence[Float[np.ndarray, "_ feature"]], relevant: Sequence[int]
) -> tuple[tuple[bool, float], float]:
    """The entry of `GRID` that ranks prompts best that it was not fitted on; and how well."""
    from sklearn.model_selection import GroupKFold

    groups = np.arange(len(features))
    folds = list(GroupKFold(FOLDS).split(groups, groups=groups))

    def auc(scaled: bool, c: float) -> float:
        return float(np.mean(list(chain.from_iterable(
            _left_out(features, relevant, fold, scaled, c) for fold in folds
        ))))  # fmt: skip

    aucs = {each: auc(*each) for each in GRID}
    best = max(GRID, key=aucs.__getitem__)
    return best, aucs[best]


def _left_out(
    features: Sequence[Float[np.ndarray, "_ feature"]],
    relevant: Sequence[int],
    fold: tuple[Any, Any],
    scaled: bool,
    c: float,
) -> list[float]:
    known, tested = fold
    fit = fitted([features[i] for i in known], [relevant[i] for i in known], scaled, c)
    return [within_auc(fit.decision_function(features[i]), relevant[i]) for i in tested]
