from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from headscope.errors import HeadscopeError
from headscope.interventions.compressing import Sentences, _Compressing
from headscope.interventions.sentinel_classifier import SentinelClassifier, sentence_features
from headscope.prompts.needle import Needle

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class Sentinel(_Compressing):
    """Keep the sentences of which a classifier of attention says that they are relevant.

    The prompt is read once as a whole. Features of a sentence s, one for each head of each layer:
    f_s = mean over its tokens j of A[last, j], renormalised so that the tokens of all sentences sum
    to 1. A logistic regression that was trained on the same model gives each sentence a
    probability; those of highest probability are kept, within a budget of tokens or from a
    threshold on. The prompt then has to be read again, so that it costs a pass.

    Source: Sentinel 2025, "Attention Probing of Proxy Models for LLM Context Compression with an
    Understanding Perspective", arXiv 2505.23277 (last row, renormalised in the context, mean per
    sentence, logistic regression, threshold 0.5 or a budget; after its released code). It reads
    with a small model what a larger one then answers from, and is trained on questions that are
    answered only with the context. Headscope's own: one model for both, training on needles in
    prose, the choice of penalty, equal weight of both classes, that sentences which do not fit are
    passed over, and what becomes of the tokens between sentences.

    Attributes:
        classifier: from `SentinelClassifier.train(model, prompts)` or `SentinelClassifier.load`.
        budget, threshold, sentences: see `_Compressing`.
    """

    paper = "Sentinel 2025, arXiv 2505.23277"
    files: ClassVar[Mapping[str, type[Any]]] = {"classifier": SentinelClassifier}
    classifier: SentinelClassifier = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.classifier, SentinelClassifier):
            raise HeadscopeError(
                "Sentinel needs classifier=SentinelClassifier.train(model, prompts), or "
                "SentinelClassifier.load(path)."
            )

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        options = super().completed(options, model, seed)
        if options.get("classifier") is not None:
            return options
        prompts = Needle(samples=20, seed=seed, split="tune").prompts(model.tokenizer)
        return {**options, "classifier": SentinelClassifier.train(model, prompts)}

    def check(self, model: "HeadModel") -> None:
        self.classifier.check(model)

    def _scores(self, model: "HeadModel", context: Sentences) -> Sequence[float]:
        features = sentence_features(model, context.prompt, context.name)
        return self.classifier.probabilities(features).tolist()
