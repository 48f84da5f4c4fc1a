"""What prompts with fewer sentences, or with pauses, do to a small model that has to find a fact.

    python benchmarks/findings_compression.py --device cuda

The claims, and what decides each, were written before anything was measured; a trial of 6
questions of 300 tokens (700 for claims 7 to 9) followed, and changed nothing. Intervals are 95 %,
over questions: paired bootstrap for nats and AUC, paired proportions for shares of right answers.
AUC is that within a prompt: the share of its other sentences below the needle's, ties half.

Sentinel (arXiv 2505.23277): a classifier trained on prompts of the family `needle`, split "detect"
(256 and 512 tokens), its penalty chosen there by 5 folds of prompts. Tested on evals of the split
"test", whose filler, names and answers are others: `needle`, and `multi_key_needle`, in which more
sentences are like the asked one, and which the model answers about half right.

1. AUC of the needle's sentence on `needle` lies above 0.9.
2. It lies above that of the mean attention of all heads: the interval of the difference, above 0.
3. Both on `multi_key_needle`, which the classifier was not trained for.
4. With sentences of 25 % of the context's tokens the share of right answers falls by less than 0.1:
   the interval of the change lies above -0.1. On both evals.
5. It lies above that with random sentences of as many tokens. On both evals.

The best single head of the training prompts, and 25 % by mean attention, are shown beside it.

Pauses without training (Goyal et al. 2023, arXiv 2310.02226), a null: 2, 5, 10 or 20 tokens " ..."
before the answer and its given first words, on `needle` and `documents`:

6. They do not help. Reproduced where the interval of the change of the log-probability (`needle`)
   or the margin (`documents`) holds 0 or lies below; not reproduced where it lies above 0 at the
   confidence that allows for all 8 (1 - 0.05 / 8); else undecided.

What 10 pauses get of the attention of the row that begins the answer is shown too.

InfiniteRetrieval (Ye et al. 2025, arXiv 2502.12962) on `needle` of 1 024 and 2 048 tokens, which
the model can read at once:

7. Read in chunks of 512 tokens by the last layer, which is the published one (top 32 tokens, phrase
   8), the share of right answers falls by less than 0.1 against the whole prompt.
8. So with the variant that is best on "tune" by the mean log-probability, of chunks of 256 or 512
   and the last 1, 10 or 20 layers.
9. That variant lies above random sentences of as many tokens.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
from verdicts import Finding, above, print_findings, progress

import headscope
from headscope.engines import Attended
from headscope.evals.base import Eval
from headscope.evals.documents import Documents
from headscope.evals.gates import mean_interval
from headscope.evals.measured import Measured
from headscope.evals.multi_key_needle import MultiKeyNeedle
from headscope.evals.needle import Needle
from headscope.evals.statistics import paired_bootstrap, paired_proportions
from headscope.interventions.base import Intervention
from headscope.interventions.compressing import Sentences, _Compressing
from headscope.interventions.document_attention import document_attention, over_heads
from headscope.interventions.infinite_retrieval import InfiniteRetrieval
from headscope.interventions.pause_tokens import PauseTokens
from headscope.interventions.ranking_fit import within_auc
from headscope.interventions.rewriting import _Rewriting
from headscope.interventions.sentinel import Sentinel
from headscope.interventions.sentinel_classifier import (
    SentinelClassifier,
    needle_sentence,
    sentence_features,
)
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.needle import Needle as NeedlePrompts

SHARE, LOST, LEVEL, PAUSES = 0.25, -0.1, 0.9, (2, 5, 10, 20)
SENTINEL, GOYAL = "Sentinel, arXiv 2505.23277", "Goyal et al. 2023, arXiv 2310.02226"
INFINITE = "Ye et al. 2025, arXiv 2502.12962"
OWN = "no published figure"


@dataclass(frozen=True)
class _Drawn(_Compressing):
    """Random sentences."""

    def _scores(self, model: HeadModel, context: Sentences) -> Sequence[float]:
        rng = Random(context.prompt.digest)
        return [rng.random() for _ in context.spans]


@dataclass(frozen=True)
class _Looked(_Compressing):
    """The sentences with the highest mean attention of all heads."""

    def _scores(self, model: HeadModel, context: Sentences) -> Sequence[float]:
        return mean_attention(model, context).tolist()


@dataclass(frozen=True)
class _DrawnLike(_Rewriting):
    """Random sentences of as many tokens as another method keeps."""

    method: _Rewriting = field(kw_only=True)

    def rewritten(self, model: HeadModel, prompt: Prompt) -> Prompt:
        found, context = self.method.rewritten(model, prompt), Sentences.of(prompt, "sentence", "")
        kept = len(found) - len(prompt) + sum(context.sizes)
        return _Drawn(budget=max(kept, min(context.sizes))).rewritten(model, prompt)


def mean_attention(model: HeadModel, context: Sentences) -> np.ndarray:
    found = document_attention(model, [context.prompt.token_ids], context.spans)
    return over_heads(model, found, None)[0].numpy()


class Asked:
    """An eval's questions under some methods, by name, and as they are ("base")."""

    def __init__(self, model: HeadModel, task: Eval, methods: Mapping[str, Intervention]) -> None:
        result = headscope.evaluate(model, [task], changes=dict(methods), progress=progress)
        self.measured: Measured = result.tasks[0]
        self.names = ["base", *methods]
        for name in self.names:
            nats, right = self.nats(name).mean(), self.right(name).mean()
            print(f"{task.name}, {name}: {nats:.3f} nats, {right:.2f} right", file=sys.stderr)

    def nats(self, name: str) -> np.ndarray:
        return self.measured.values(self.names.index(name))

    def right(self, name: str) -> np.ndarray:
        exact = self.measured.exact(self.names.index(name))
        assert exact is not None
        return exact.astype(float)

    def share(self, claim: str, source: str, name: str, before: str, level: float) -> Finding:
        change = self.right(name) - self.right(before)
        low, high = paired_proportions(change)
        shares = f"({self.right(name).mean():.2f} against {self.right(before).mean():.2f} right)"
        verdict = above(low, high, level) if source != OWN else "not judged"
        return Finding(f"{claim} {shares}", source, float(change.mean()), low, high, verdict, 3)


def mean(claim: str, source: str, values: np.ndarray, level: float | None = None) -> Finding:
    low, high = mean_interval(values)
    verdict = "not judged" if level is None else above(low, high, level)
    return Finding(claim, source, float(values.mean()), low, high, verdict, 3)


# ---- Sentinel ----------------------------------------------------------------------------------


def trained(model: HeadModel, samples: int) -> tuple[SentinelClassifier, tuple[int, int]]:
    """The classifier, and the head whose features alone rank the same prompts best."""
    family = NeedlePrompts(samples=max(5, samples), lengths=(256, 512), split="detect")
    prompts = family.prompts(model.tokenizer)
    made = SentinelClassifier.train(model, prompts)
    aucs = np.zeros((model.n_layers, model.n_heads))
    for done, prompt in enumerate(prompts, 1):
        features, needle = sentence_features(model, prompt), needle_sentence(prompt)
        aucs += [
            [within_auc(of, needle) for of in heads.T] for heads in np.moveaxis(features, 1, 0)
        ]
        progress("heads alone", done, len(prompts))
    row, head = np.unravel_index(aucs.argmax(), aucs.shape)
    print(made.facts.model_dump_json(exclude={"layers"}), file=sys.stderr)
    return made, (int(row), int(head))


def ranked(
    model: HeadModel, task: Eval, made: SentinelClassifier, single: tuple[int, int]
) -> list[Finding]:
    aucs: dict[str, list[float]] = {"classifier": [], "mean": [], "single": []}
    for index in range(task.samples):
        prompt = task.item(index, model.tokenizer).prompt
        features, needle = sentence_features(model, prompt), needle_sentence(prompt)
        attention = mean_attention(model, Sentences.of(prompt, "sentence", ""))
        aucs["classifier"].append(within_auc(made.probabilities(features), needle))
        aucs["mean"].append(within_auc(attention, needle))
        aucs["single"].append(within_auc(features[:, single[0], single[1]], needle))
        progress(f"{task.name}, AUC", index + 1, task.samples)
    ours, all_heads, one = (np.array(each) for each in aucs.values())
    head = f"L{model.layers[single[0]]}H{single[1]}"
    return [
        mean(f"{task.name}: AUC of the needle's sentence is above {LEVEL}", SENTINEL, ours, LEVEL),
        mean(
            f"{task.name}: that is above the AUC of all heads' mean attention "
            f"({all_heads.mean():.3f})", SENTINEL, ours - all_heads, 0,
        ),
        mean(
            f"{task.name}: less the AUC of {head}, the best head in training ({one.mean():.3f})",
            OWN, ours - one,
        ),
    ]  # fmt: skip


def sentinel(model: HeadModel, samples: int, lengths: tuple[int, ...]) -> list[Finding]:
    made, single = trained(model, samples)
    methods = {
        "Sentinel": Sentinel(classifier=made, budget=SHARE),
        "random": _Drawn(budget=SHARE),
        "mean attention": _Looked(budget=SHARE),
    }
    found: list[Finding] = []
    tasks = (Needle, MultiKeyNeedle)
    for task in (kind(samples=samples, lengths=lengths) for kind in tasks):
        found += ranked(model, task, made, single)
        asked, what = Asked(model, task, methods), f"{task.name}, {SHARE:.0%} of the context"
        found += [
            asked.share(f"{what}: right answers fall by less than {-LOST}", SENTINEL, "Sentinel",
                        "base", LOST),
            asked.share(f"{what}: more right answers than with random sentences", SENTINEL,
                        "Sentinel", "random", 0),
            asked.share(f"{what}: less those by mean attention", OWN, "Sentinel", "mean attention",
                        0),
        ]  # fmt: skip
    return found


# ---- pauses ------------------------------------------------------------------------------------


def pauses(model: HeadModel, samples: int, lengths: tuple[int, ...]) -> list[Finding]:
    methods = {str(count): PauseTokens(count) for count in PAUSES}
    tasks = (
        Needle(samples=samples, lengths=lengths),
        Documents(samples=samples, lengths=lengths[:1]),
    )
    confidence = 1 - 0.05 / (len(tasks) * len(PAUSES))
    found: list[Finding] = []
    for task in tasks:
        asked = Asked(model, task, methods)
        for name in methods:
            change = asked.nats(name) - asked.nats("base")
            low, high = mean_interval(change)
            surely = paired_bootstrap(change, confidence=confidence)[0] > 0
            verdict = "reproduced" if low <= 0 else "undecided"
            right = (asked.right(name) - asked.right("base")).mean()
            claim = f"{task.name}: {name} pauses do not help (nats; right answers {right:+.3f})"
            found.append(
                Finding(claim, GOYAL, float(change.mean()), low, high,
                        "not reproduced" if surely else verdict, 3)
            )  # fmt: skip
    return [*found, *absorbed(model, tasks[0])]


def absorbed(model: HeadModel, task: Needle) -> list[Finding]:
    """Attention of the row that begins the answer, mean over all heads, with 10 pauses."""
    method = PauseTokens(10)
    on_pauses, on_needle, on_first = list[float](), list[float](), list[float]()
    for index in range(task.samples):
        prompt = task.item(index, model.tokenizer).prompt
        at, paused = method.position(model, prompt), method.rewritten(model, prompt)
        spans = {
            "pauses": (at, at + method.count),
            "first": (0, 1),
            "needle": prompt.span("needle"),
        }
        plain = masses(model, prompt, {"first": (0, 1), "needle": prompt.span("needle")})
        shown = masses(model, paused, spans)
        on_pauses.append(shown["pauses"])
        on_needle.append(shown["needle"] - plain["needle"])
        on_first.append(shown["first"] - plain["first"])
        progress("attention on pauses", index + 1, task.samples)
    what = "attention of the row that begins the answer, all heads, with 10 pauses:"
    return [
        mean(f"{what} on the pauses", OWN, np.array(on_pauses)),
        mean(f"{what} change on the needle's sentence", OWN, np.array(on_needle)),
        mean(f"{what} change on the first token", OWN, np.array(on_first)),
    ]


def masses(
    model: HeadModel, prompt: Prompt, spans: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
    layers: list[torch.Tensor] = []

    def read(attended: Attended) -> None:
        attention = attended.attention
        last = [attention.n_queries - 1]
        layers.append(torch.stack([attention.mass(slice(*s), last).mean() for s in spans.values()]))

    with torch.no_grad(), model.observed(read):
        model.forward(list(prompt.token_ids), last=1)
    return dict(zip(spans, torch.stack(layers).mean(0).tolist(), strict=True))


# ---- infinite retrieval ------------------------------------------------------------------------


def infinite(model: HeadModel, samples: int, lengths: tuple[int, ...]) -> list[Finding]:
    published = "chunk 512, 1 layer"
    methods: dict[str, Intervention] = {
        f"chunk {chunk}, {layers} layer{'s' if layers > 1 else ''}": InfiniteRetrieval(
            chunk, layers=layers
        )
        for chunk in (256, 512)
        for layers in (1, 10, 20)
    }
    task = Needle(samples=samples, lengths=lengths)
    tuned = Asked(model, replace(task, split="tune", samples=max(6, samples // 2)), methods)
    best = max(methods, key=lambda name: tuned.nats(name).mean())
    print(f"chosen on tune: {best}", file=sys.stderr)
    chosen = methods[best]
    assert isinstance(chosen, InfiniteRetrieval)
    tested = {published: methods[published], best: chosen, "random": _DrawnLike(method=chosen)}
    asked, kept = Asked(model, task, tested), kept_of(model, task, chosen)
    return [
        asked.share(
            f"InfiniteRetrieval by the published layer ({published}): right answers fall by less "
            f"than {-LOST}",
            INFINITE, published, "base", LOST,
        ),
        asked.share(
            f"the best on tune ({best}; {kept}): right answers fall by less than {-LOST}",
            INFINITE, best, "base", LOST,
        ),
        asked.share("more right answers than with random sentences of as many tokens", INFINITE,
                    best, "random", 0),
    ]  # fmt: skip


def kept_of(model: HeadModel, task: Needle, method: InfiniteRetrieval) -> str:
    prompts = [task.item(index, model.tokenizer).prompt for index in range(task.samples)]
    found = [method.rewritten(model, prompt) for prompt in prompts]
    tokens = np.mean(
        [len(after) / len(before) for after, before in zip(found, prompts, strict=True)]
    )
    needle = np.mean(["needle" in after.spans for after in found])
    return f"{tokens:.0%} of the tokens are left, and {needle:.0%} of the needles"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--lengths", type=int, nargs="+", default=[768, 1024])
    parser.add_argument("--long", type=int, nargs="+", default=[1024, 2048])
    options = parser.parse_args(argv)
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    lengths, longer = tuple(options.lengths), tuple(options.long)
    print_findings(
        [
            *sentinel(model, options.samples, lengths),
            *pauses(model, options.samples, lengths),
            *infinite(model, options.samples, longer),
        ]
    )


if __name__ == "__main__":
    main()
