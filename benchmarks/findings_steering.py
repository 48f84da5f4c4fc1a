"""What steering attention to marked words does to a small model.

    python benchmarks/findings_steering.py --device cuda

The claims, and what decides each, were written before anything was measured. Intervals are 95 %,
paired bootstrap over questions. Factors are chosen on the split "tune" by the mean change of the
log-probability, and tested on "test". Questions: eval `multi_key_needle`, 512 and 1 024 tokens,
which the model answers about half right (a trial with 6 questions of `needle` was at the ceiling).

Context-awareness (Wang et al. 2024, arXiv 2411.02688), in the chat template and without it:

1. In the template the row that begins the answer gives the user's words (first sentence to last
   word of the question; the same words in both) less attention, over all heads, than without:
   the interval of the difference lies below 0.
2. ContextSteering on the user's words, alpha of 0.95, 0.9, 0.8 or 0.5, raises the log-probability
   of the answer in the template: the interval of the change lies above 0.
3. It does not without the template (the same words marked): the interval includes 0 or lies below.

Pasta (Zhang et al. 2023, arXiv 2311.02262) on the needle's sentence, alpha of 0.5, 0.1 or 0.01:

4. With the top 5 retrieval heads of a scan of other prompts it raises the log-probability.
5. It raises it by more than with 5 random heads of the same layers (mean of 9 sets).

The sink (doses after Xiao et al. 2023, arXiv 2309.17453), in nats a token of the eval `perplexity`
and nats of the needle's answer; figures without a published one to hold them against:

6. The first token without weight for all later rows (dose 0), and with twice its weight.
7. Every sink hidden from the rows of the answer, once the prompt is read (RemoveSink).
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from verdicts import Finding, above, below, print_findings, progress

import headscope
from headscope.engines import Attended
from headscope.evals.controls import layer_matched_sets
from headscope.evals.gates import mean_interval
from headscope.evals.multi_key_needle import MultiKeyNeedle
from headscope.evals.perplexity import Perplexity
from headscope.interventions.base import Intervention
from headscope.interventions.context_steering import ContextSteering
from headscope.interventions.pasta import Pasta
from headscope.interventions.remove_sink import RemoveSink
from headscope.interventions.scale_sink import ScaleSink
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.needle import Needle as NeedlePrompts

LENGTHS = (512, 1024)
ALPHAS, PASTA_ALPHAS = (0.95, 0.9, 0.8, 0.5), (0.5, 0.1, 0.01)
WANG, ZHANG = "Wang et al. 2024, arXiv 2411.02688", "PASTA, arXiv 2311.02262"
XIAO = "after Xiao et al. 2023, arXiv 2309.17453"


class Worded(MultiKeyNeedle):
    """Needles with a span "words": from the first sentence to the end of the question."""

    def item(self, index, tokenizer):
        item = super().item(index, tokenizer)
        return replace(item, prompt=worded(item.prompt))


def worded(prompt: Prompt) -> Prompt:
    words = (prompt.span("sentence_0")[0], prompt.span("question")[1])
    return replace(prompt, spans={**prompt.spans, "words": words})


def changes_of(
    model: HeadModel, task: MultiKeyNeedle | Perplexity, methods: Mapping[str, Intervention]
) -> dict[str, np.ndarray]:
    """Change in nats of every question, by method."""
    done = headscope.evaluate(model, [task], changes=dict(methods), progress=progress).tasks[0]
    for at, name in enumerate(("base", *methods)):
        right = done.exact(at)
        share = "" if right is None else f", {right.mean():.2f} right"
        print(f"{task.title}, {name}: {done.values(at).mean():.3f} nats{share}", file=sys.stderr)
    return {name: done.values(at + 1) - done.values(0) for at, name in enumerate(methods)}


def chosen(
    model: HeadModel, task: MultiKeyNeedle, methods: Mapping[str, Intervention], kind: str
) -> tuple[str, np.ndarray]:
    """The best method of some on "tune", and its change on "test"."""
    tuned = changes_of(model, replace(task, split="tune"), methods)
    best = max(tuned, key=lambda name: tuned[name].mean())
    print(f"{kind}: {best} is best on tune", file=sys.stderr)
    return best, changes_of(model, replace(task, split="test"), {best: methods[best]})[best]


def attention_on_words(model: HeadModel, samples: int, chat: bool) -> np.ndarray:
    found = []
    task = Worded(samples=samples, lengths=LENGTHS, chat=chat)
    for prompt in (item.prompt for item in task.items(model.tokenizer)):
        start, stop = prompt.span("words")
        shares: list[torch.Tensor] = []

        def look(attended: Attended, words=slice(start, stop), kept=shares) -> None:
            attention = attended.attention
            kept.append(attention.mass(words, [attention.n_queries - 1]).mean())

        with model.observed(look):
            model.forward(list(prompt.token_ids), last=1)
        found.append(float(torch.stack(shares).mean()))
    return np.array(found)


def context(model: HeadModel, samples: int) -> list[Finding]:
    shares = {chat: attention_on_words(model, samples, chat) for chat in (True, False)}
    less = shares[True] - shares[False]
    low, high = mean_interval(less)
    found = [
        Finding(
            "attention of the answer's first row on the user's words, in the chat template less "
            f"than without it ({shares[True].mean():.3f} against {shares[False].mean():.3f})",
            WANG, float(less.mean()), low, high, below(low, high, 0), 3,
        )
    ]  # fmt: skip
    methods = {f"alpha {alpha}": ContextSteering("words", alpha=alpha) for alpha in ALPHAS}
    for chat, where in ((True, "in the chat template"), (False, "without the chat template")):
        task = Worded(samples=samples, lengths=LENGTHS, chat=chat)
        best, change = chosen(model, task, methods, f"context steering {where}")
        low, high = mean_interval(change)
        verdict = above(low, high, 0)
        found.append(
            Finding(
                f"steering to the user's words ({best}) raises the answer's log-probability "
                f"{where}" + ("" if chat else " (claimed: it does not)"),
                WANG, float(change.mean()), low, high,
                verdict if chat else {"reproduced": "not reproduced"}.get(verdict, "reproduced"), 3,
            )
        )  # fmt: skip
    return found


def pasta(model: HeadModel, samples: int) -> list[Finding]:
    family = NeedlePrompts(samples=12, split="detect")
    top = headscope.scan(model, ["retrieval"], prompts=family, progress=progress).top(
        "retrieval", 5
    )
    heads = tuple(zip(top["layer"].tolist(), top["head"].tolist(), strict=True))
    task = MultiKeyNeedle(samples=samples, lengths=LENGTHS)
    methods = {f"alpha {a}": Pasta("needle", alpha=a, heads=heads) for a in PASTA_ALPHAS}
    best, change = chosen(model, task, methods, "pasta")
    sets = layer_matched_sets(model.heads, heads, 9, 0)
    random = {
        f"random {i}": Pasta("needle", alpha=methods[best].alpha, heads=each)
        for i, each in enumerate(sets)
    }
    controls = np.mean(list(changes_of(model, task, random).values()), axis=0)
    return [
        _gain(f"Pasta on the needle with the top 5 retrieval heads ({best}) raises the answer's "
              "log-probability", change),
        _gain("and by more than with 5 random heads of the same layers", change - controls),
    ]  # fmt: skip


def _gain(claim: str, change: np.ndarray) -> Finding:
    low, high = mean_interval(change)
    return Finding(claim, ZHANG, float(change.mean()), low, high, above(low, high, 0), 3)


def sinks(model: HeadModel, samples: int) -> list[Finding]:
    methods = {
        "the first token hidden from all later rows (dose 0)": ScaleSink(0.0),
        "the first token with twice its weight (dose 2)": ScaleSink(2.0),
    }
    answers = {"every sink hidden from the answer's rows": RemoveSink()}
    found = []
    for task, of in (
        (Perplexity(samples=samples, lengths=(512,)), methods),
        (MultiKeyNeedle(samples=samples, lengths=LENGTHS), methods | answers),
    ):
        unit = "a token of running text" if task.metric == "tokens" else "the needle's answer"
        for name, change in changes_of(model, task, of).items():
            low, high = mean_interval(change)
            found.append(
                Finding(f"{name}: change in nats of {unit}", XIAO, float(change.mean()), low, high,
                        "no published figure", 3)
            )  # fmt: skip
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args(argv)
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    print_findings(
        [
            *context(model, options.samples),
            *pasta(model, options.samples),
            *sinks(model, options.samples),
        ]
    )


if __name__ == "__main__":
    main()
