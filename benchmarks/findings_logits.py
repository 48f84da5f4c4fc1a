"""What two methods that act on logits do to a small model: DAGCD and Attention Buckets.

    python benchmarks/findings_logits.py --device cuda

The claims, and what decides each, were written before anything was measured. Intervals are 95 %,
paired bootstrap over questions; a claim is reproduced where the whole interval of the change lies
above 0. Everything that is chosen is chosen on the split "tune", and tested on "test".

DAGCD (arXiv 2501.01059): a detector of 10 heads, trained on the prompts of the four evals below on
"tune"; alpha of 0.5, 1, 2 or 4, by the mean change of the log-probability there, one for all. On
`documents` and `key_value` (512 tokens; answers are numbers, whose tokens are digits for this
model), `single_fact` (256 tokens; answers are words) and `conflict` (see below):

1. It raises the log-probability of the context's answer.
2. It raises accuracy, the share of questions whose right answer is the likeliest of the choices.
   On `conflict` that is the share answered as the context has it, against what everybody knows: the
   claim of faithfulness under conflict.

Attention Buckets (arXiv 2312.04455), on `key_value` and `documents` at 512 and 1 024 tokens, with
the model's base times 1, 1.25, 1.5 and 2, times 1, 1.05, 1.1 and 1.2, or as found by the search,
whichever has the largest mean change of the margin over both evals on "tune":

3. It raises the margin of the right answer over the wrong ones.
4. It raises accuracy.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase
from verdicts import Finding, above, print_findings, progress

import headscope
from headscope.evals.base import Eval, Item
from headscope.evals.common_knowledge import KINDS
from headscope.evals.documents import Documents
from headscope.evals.drafting import choices
from headscope.evals.drawing import third
from headscope.evals.gates import mean_interval
from headscope.evals.key_value import KeyValue
from headscope.evals.single_fact import SingleFact
from headscope.interventions.attention_buckets import AttentionBuckets
from headscope.interventions.base import Intervention
from headscope.interventions.dagcd import Dagcd
from headscope.interventions.utilization_detector import UtilizationDetector
from headscope.model import HeadModel
from headscope.prompts.asking import Draft

ALPHAS = (0.5, 1.0, 2.0, 4.0)
HUANG, CHEN = "DAGCD, arXiv 2501.01059", "Attention Buckets, arXiv 2312.04455"


@dataclass(frozen=True)
class Conflict(Eval):
    """Facts that everybody knows, told otherwise; right is what the passage says of the asked one.

    Four sentences of a kind, each with the answer to another of the four; wrong are what is true
    and the other answers.
    """

    metric: ClassVar = "choice"
    source: ClassVar = "after Longpre et al. 2021, arXiv 2109.05052"
    licence: ClassVar = "none needed: common knowledge"
    told: int = field(default=4, kw_only=True)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, kind = self.rng(index), list(KINDS.values())[index % len(KINDS)]
        facts = third(kind.facts, self.split)
        drawn = rng.sample(facts, self.told)
        while len({answer for _, answer in drawn}) < self.told:
            drawn = rng.sample(facts, self.told)
        moved = [(key, drawn[i - 1][1]) for i, (key, _) in enumerate(drawn)]
        said = [f"{kind.sentence.format(key=key)} {answer}." for key, answer in moved]
        passage = " ".join(rng.sample(said, len(said)))
        before = "Passage: "
        text = f"{before}{passage}\n\nAccording to the passage, "
        lead = kind.sentence.format(key=moved[0][0])
        text += lead[0].lower() + lead[1:]
        spans = {"context": (len(before), len(before) + len(passage))}
        draft = Draft(text, spans, moved[0][1], False, {"length": 0, "key": moved[0][0]})
        wrong = [answer for _, answer in drawn if answer != moved[0][1]]
        return Item(draft.encode(tokenizer), wrong=choices(draft, tokenizer, wrong))


@dataclass(frozen=True)
class Changed:
    """Changes of every question under one method."""

    logp: np.ndarray
    margin: np.ndarray
    right: np.ndarray
    before: float  # accuracy of the model as it is


def changes_of(
    model: HeadModel, task: Eval, methods: Mapping[str, Intervention]
) -> dict[str, Changed]:
    scores = headscope.evaluate(model, [task], changes=methods, progress=progress).tasks[0].scores
    base, found = scores[0], dict[str, Changed]()
    for name, score in zip(methods, scores[1:], strict=True):
        logp, margin, right = (
            np.array(getattr(score, part), dtype=float) - np.array(getattr(base, part), dtype=float)
            for part in ("logp", "margin", "exact")
        )
        found[name] = Changed(logp, margin, right, float(np.mean(base.exact)))
        told = f"logp {logp.mean():+.3f}, margin {margin.mean():+.3f}, right {right.mean():+.3f}"
        print(f"{task.title} ({task.split}), {name}: {told}", file=sys.stderr)
    return found


def gain(claim: str, source: str, change: np.ndarray) -> Finding:
    low, high = mean_interval(change)
    return Finding(claim, source, float(change.mean()), low, high, above(low, high, 0), 3)


def gains(
    model: HeadModel,
    tasks: Sequence[Eval],
    method: Mapping[str, Intervention],
    what: str,
    source: str,
    unit: Literal["logp", "margin"],
) -> list[Finding]:
    """What the one method chosen on "tune" does to each eval, in nats and in right answers."""
    raised = {"logp": "the answer's log-probability", "margin": "the margin of the right answer"}
    found = list[Finding]()
    for task in tasks:
        ((best, change),) = changes_of(model, task, method).items()
        name = f"{what} ({best}) on `{task.title}`"
        found.append(gain(f"{name} raises {raised[unit]}", source, getattr(change, unit)))
        claim = f"{name} raises accuracy ({change.before:.2f} without)"
        found.append(gain(claim, source, change.right))
    return found


def dagcd(model: HeadModel, samples: int, length: int) -> list[Finding]:
    tasks: list[Eval] = [
        Documents(samples=samples, lengths=(length,)), KeyValue(samples=samples, lengths=(length,)),
        SingleFact(samples=samples, lengths=(length // 2,)), Conflict(samples=samples),
    ]  # fmt: skip
    tune = [replace(task, split="tune") for task in tasks]
    prompts = [item.prompt for task in tune for item in task.items(model.tokenizer)]
    detector = UtilizationDetector.train(model, prompts)
    print(f"detector: {detector.heads}, accuracy {detector.facts.accuracy:.3f}", file=sys.stderr)
    methods = {f"alpha {alpha:g}": Dagcd(detector, alpha=alpha) for alpha in ALPHAS}
    tuned = [changes_of(model, task, methods) for task in tune]
    best = max(methods, key=lambda name: sum(each[name].logp.mean() for each in tuned))
    return gains(model, tasks, {best: methods[best]}, "DAGCD", HUANG, "logp")


def buckets(model: HeadModel, samples: int, length: int) -> list[Finding]:
    lengths = (length, 2 * length)
    tasks: list[Eval] = [
        KeyValue(samples=samples, lengths=lengths), Documents(samples=samples, lengths=lengths),
    ]  # fmt: skip
    searched = AttentionBuckets.search(model, reach=2 * length)
    assert searched.bases is not None
    own = searched.bases[0]
    print(f"searched: {', '.join(f'{base / own:g}' for base in searched.bases)}", file=sys.stderr)
    methods = {
        "1 to 2": AttentionBuckets(),
        "1 to 1.2": AttentionBuckets([own * multiple for multiple in (1.0, 1.05, 1.1, 1.2)]),
        "searched": searched,
    }
    tuned = [changes_of(model, replace(task, split="tune"), methods) for task in tasks]
    best = max(methods, key=lambda name: sum(each[name].margin.mean() for each in tuned))
    return gains(model, tasks, {best: methods[best]}, "Attention Buckets", CHEN, "margin")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--length", type=int, default=512)
    options = parser.parse_args(argv)
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    print_findings(
        [
            *dagcd(model, options.samples, options.length),
            *buckets(model, options.samples, options.length),
        ]
    )


if __name__ == "__main__":
    main()
