"""What tells from attention alone whether a model is about to say a token of its context."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.heads import Head, check_heads
from headscope.interventions.context_attention import (
    context_of,
    on_context,
    positions_in,
    token_ratios,
)
from headscope.interventions.spans import Span
from headscope.interventions.trained import Origin, facts_of, load_trained, save_trained
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.model import HeadModel

_FOLDS = 3
_NEGATIVES = 8  # drawn from each row; what is kept in the end is as many as there are positives


class DetectorFacts(Origin):
    """What is known of a detector beside its numbers.

    Attributes:
        heads: whose ratios it reads.
        accuracy: mean of 3 folds in training, where half of the tokens were used.
        stop_ids: tokens that end an answer of the model.
    """

    kind: Literal["utilization_detector"] = "utilization_detector"
    heads: tuple[Head, ...]
    accuracy: float
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class UtilizationDetector:
    """A logistic regression on the attention ratios of a token of the context, one for each head.

    A token is being used where sum_h weights_h ratio_h + bias > 0; see `token_ratios`.

    Attributes:
        weights: of the regression, in the order of `facts.heads`.
        bias: of the regression.
        facts: the model, the heads and the training.
    """

    weights: Float[Tensor, " head"]
    bias: float
    facts: DetectorFacts

    @property
    def heads(self) -> tuple[Head, ...]:
        """Whose ratios it reads."""
        return self.facts.heads

    @classmethod
    def train(
        cls,
        model: "HeadModel",
        prompts: Sequence[Prompt],
        context: Span | None = None,
        count: int = 10,
        top_rank: int = 10,
        seed: int = 0,
    ) -> "UtilizationDetector":
        """Read prompts with their answers, and learn which tokens of their contexts are said.

        Positive is the token of an answer where the model says it itself and the context holds it;
        negative are other tokens of the context that it ranks below `top_rank`, as many, drawn
        without an eye to names. Regressions have an L2 penalty, chosen from 0.001 to 100 by
        accuracy in 3 folds. The `count` heads of largest |weight| are kept, and trained on again.

        Args:
            prompts: with answers, and none of the test's.
            context: as in `context_of`.

        Raises:
            HeadscopeError: the model says too few of the answers.
        """
        used, unused = list[np.ndarray](), list[np.ndarray]()
        rng = np.random.default_rng(seed)
        for prompt in prompts:
            for ratios, positive, negative in _rows(model, prompt, context, top_rank):
                used += [ratios[:, positive]]
                some = rng.permutation(negative)[:_NEGATIVES]
                unused += [ratios[:, token] for token in some]
        size = min(len(used), len(unused))
        if size < _FOLDS:
            raise HeadscopeError(
                f"{model.name} says {len(used)} tokens of the answers of {len(prompts)} prompts as "
                f"their contexts have them, and a detector needs {_FOLDS} or more with others to "
                "tell them from; train on more prompts, or on easier ones."
            )
        kept = [np.stack(x)[rng.permutation(len(x))[:size]] for x in (used, unused)]
        x, y = np.concatenate(kept), np.repeat([1, 0], size)
        all_heads, _, _ = _fitted(x, y)
        order = np.argsort(-np.abs(all_heads), kind="stable")[:count]
        weights, bias, accuracy = _fitted(x[:, order], y)
        facts = DetectorFacts(
            **facts_of(model),
            heads=tuple(model.heads[i] for i in order.tolist()),
            accuracy=accuracy,
            stop_ids=tuple(sorted(model.stop_ids)),
        )
        return cls(torch.from_numpy(weights).float(), bias, facts)

    def check(self, model: "HeadModel") -> None:
        """Refuse another model than the one that it was trained on.

        Raises:
            HeadscopeError: it names both.
        """
        self.facts.check(model, "The detector was")
        check_heads(self.heads, model.layers, model.n_heads, model.name)

    def save(self, path: str | Path) -> Path:
        """Save it as one safetensors file."""
        arrays = {"weights": self.weights.numpy(), "bias": np.array([self.bias])}
        return save_trained(path, arrays, self.facts)

    @classmethod
    def load(cls, path: str | Path) -> "UtilizationDetector":
        """Read a saved detector.

        Raises:
            HeadscopeError: the file is missing, damaged or something else.
        """
        arrays, facts = load_trained(path, DetectorFacts, "utilization detector")
        n_heads = len(facts.heads)
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {"weights": (n_heads,), "bias": (1,)}:
            raise HeadscopeError(
                f"{path} is damaged: it does not hold a weight for each of {n_heads} heads; train "
                "the detector again."
            )
        weights = torch.from_numpy(arrays["weights"].copy()).float()
        return cls(weights, float(arrays["bias"][0]), facts)


def _rows(
    model: "HeadModel", prompt: Prompt, context: Span | None, top_rank: int
) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """For each token of an answer that is said: [head, distinct] ratios, its place among the
    distinct tokens, and those of tokens far down in the model's ranking."""
    positions = positions_in(context_of(prompt, context, "A utilization detector"))
    answer = torch.tensor(prompt.answer_ids, device=model.device)
    layers = list[Tensor]()
    rows = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answer), device=model.device)

    def keep(attended: Attended) -> None:
        heads = range(attended.attention.n_heads)
        layers.append(on_context(attended.attention, heads, rows, positions)[0].double())

    ids = [*prompt.token_ids, *prompt.answer_ids[:-1]]
    with torch.no_grad(), model.observed(keep):
        logits = model.forward(ids, prompt_length=len(prompt), last=len(answer))[0]
    tokens = torch.tensor(prompt.token_ids, device=model.device)[positions]
    distinct, ratios = token_ratios(
        torch.cat([layer.to(tokens.device) for layer in layers]), tokens
    )
    found = []
    for i, target in enumerate(answer):
        place = (distinct == target).nonzero()[:, 0]
        if len(place) and bool(logits[i].argmax() == target):
            ranks = (logits[i][None] > logits[i][distinct][:, None]).sum(-1) + 1
            low = (ranks > top_rank).nonzero()[:, 0]
            found.append((ratios[:, i].cpu().numpy(), int(place), low.cpu().numpy()))
    return found


def _fitted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Weights, bias and mean accuracy in folds of the best penalised regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    grid = {"C": [0.001, 0.01, 0.1, 1, 10, 100]}
    best = GridSearchCV(LogisticRegression(max_iter=10000), grid, cv=folds, scoring="accuracy")
    best.fit(x, y)
    fitted = best.best_estimator_
    return fitted.coef_[0], float(fitted.intercept_[0]), float(best.best_score_)
