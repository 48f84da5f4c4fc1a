"""What tells from the attention of the last row which sentences of a prompt are relevant."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.interventions.compressing import Sentences
from headscope.interventions.document_attention import document_attention
from headscope.interventions.ranking_fit import FOLDS, chosen, fitted
from headscope.interventions.trained import Origin, facts_of, load_trained, save_trained
from headscope.probes.sentence import shared_with_needle
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.model import HeadModel

_ARRAYS = ("coefficients", "mean", "scale", "intercept")


class SentinelFacts(Origin):
    """What is known of a classifier beside its numbers.

    Attributes:
        scaled, c: what training chose; see `ranking_fit.GRID`.
        auc: of the training prompts, each judged by a fit that had not seen it; see
            `ranking_fit.within_auc`.
        prompts, sentences: how many it was trained on.
    """

    kind: Literal["sentinel_classifier"] = "sentinel_classifier"
    scaled: bool
    c: float
    auc: float
    prompts: int
    sentences: int


@dataclass(frozen=True, eq=False)
class SentinelClassifier:
    """A logistic regression on a sentence's features, one for each head of a model.

    p = 1 / (1 + exp(-(intercept + sum over heads of coefficients (f - mean) / scale))).

    Attributes:
        coefficients, mean, scale: of each head; mean is 0 and scale 1 where nothing is
            standardised.
        intercept: of the regression. The relevant sentences weigh as much as all others together,
            so that p is above 0.5 where a sentence is more like one of them.
        facts: of the model and the training.
    """

    coefficients: Float[np.ndarray, "layer head"]
    mean: Float[np.ndarray, "layer head"]
    scale: Float[np.ndarray, "layer head"]
    intercept: float
    facts: SentinelFacts

    @classmethod
    def train(
        cls, model: "HeadModel", prompts: Sequence[Prompt], sentences: str = "sentence"
    ) -> "SentinelClassifier":
        """Read prompts once each, and learn which sentence holds the span "needle".

        Penalty and standardisation are those of `ranking_fit.GRID` with the highest AUC within
        prompts in 5 folds, all sentences of a prompt in one fold; then all prompts are fitted.

        Args:
            prompts: at least 5, and none of the test's.
            sentences: the sentences are the spans of this name.

        Raises:
            HeadscopeError: too few prompts, or one without two sentences and a needle in one.
        """
        if len(prompts) < FOLDS:
            raise HeadscopeError(
                f"A Sentinel classifier is trained on {FOLDS} prompts or more, not {len(prompts)}."
            )
        relevant = [needle_sentence(prompt, sentences) for prompt in prompts]
        found = [sentence_features(model, prompt, sentences) for prompt in prompts]
        features = [one.reshape(len(one), -1) for one in found]
        (scaled, c), auc = chosen(features, relevant)
        fit, shape = fitted(features, relevant, scaled, c), (model.n_layers, model.n_heads)
        mean, scale = (fit[0].mean_, fit[0].scale_) if scaled else (np.zeros(shape), np.ones(shape))
        facts = SentinelFacts(
            **facts_of(model), scaled=scaled, c=c, auc=auc, prompts=len(prompts),
            sentences=sum(map(len, features)),
        )  # fmt: skip
        coefficients, mean, scale = (x.reshape(shape) for x in (fit[-1].coef_[0], mean, scale))
        return cls(coefficients, mean, scale, float(fit[-1].intercept_[0]), facts)

    def probabilities(
        self, features: Float[np.ndarray, "sentence layer head"]
    ) -> Float[np.ndarray, " sentence"]:
        """How likely each sentence is to be relevant."""
        terms = self.coefficients * (features - self.mean) / self.scale
        # So that small probabilities stay apart.
        return np.exp(-np.logaddexp(0, -(self.intercept + terms.sum((1, 2)))))

    def check(self, model: "HeadModel") -> None:
        """Refuse another model than the one that it was trained on.

        Raises:
            HeadscopeError: it names both.
        """
        self.facts.check(model, "The Sentinel classifier was")

    def save(self, path: str | Path) -> Path:
        """Save it as one safetensors file."""
        arrays = {name: np.asarray(getattr(self, name), np.float64) for name in _ARRAYS}
        return save_trained(path, arrays, self.facts)

    @classmethod
    def load(cls, path: str | Path) -> "SentinelClassifier":
        """Read a saved classifier.

        Raises:
            HeadscopeError: the file is missing, damaged or something else.
        """
        arrays, facts = load_trained(path, SentinelFacts, "Sentinel classifier")
        size = (len(facts.layers), facts.n_heads)
        shapes = {name: (1,) if name == "intercept" else size for name in _ARRAYS}
        whole = {name: array.shape for name, array in arrays.items()} == shapes
        if not whole or not (arrays["scale"] > 0).all():
            raise HeadscopeError(
                f"{path} is damaged: its numbers are not those of {size[0]} layers × {size[1]} "
                "heads; train the classifier again."
            )
        coefficients, mean, scale, intercept = (arrays[name] for name in _ARRAYS)
        return cls(coefficients, mean, scale, float(intercept[0]), facts)


def sentence_features(
    model: "HeadModel", prompt: Prompt, sentences: str = "sentence"
) -> Float[np.ndarray, "sentence layer head"]:
    """The features of each sentence, in the order in which they stand.

    f_s = mean over tokens j of s of A[last, j] / (sum over the tokens c of all sentences of
    A[last, c]), by head; 0 where the last row of the prompt gives no sentence anything.
    """
    context = Sentences.of(prompt, sentences, "Sentinel")
    means = document_attention(model, [prompt.token_ids], context.spans)[0].double().numpy()
    lengths = np.array([stop - start for start, stop in context.spans])
    total = (means * lengths).sum(-1, keepdims=True)
    return np.moveaxis(means / np.where(total > 0, total, 1), -1, 0)


def needle_sentence(prompt: Prompt, sentences: str = "sentence") -> int:
    """The place of the sentence that shares most tokens with the span "needle".

    Raises:
        HeadscopeError: there are not two sentences, or none that shares any.
    """
    shared = shared_with_needle(prompt, Sentences.of(prompt, sentences, "Sentinel").spans)
    if len(shared) < 2 or max(shared) < 1:
        raise HeadscopeError(
            "A Sentinel classifier is trained on prompts of two sentences or more, one of which "
            "holds the span 'needle'; mark them, or use the prompts 'needle'."
        )
    return shared.index(max(shared))
