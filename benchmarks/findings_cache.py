"""What a small model loses with a streaming cache, and which KV heads may have one.

    python benchmarks/findings_cache.py --device cuda

The claims, and what decides each, were written before anything was measured, but for a trial of
this script on the split "test": six needle prompts of 160 tokens with two random halves, and six
texts of 400 tokens. Claim 4 was given an interval with a width after it; levels stayed. Heads are
found on the split "detect", everything is measured on "test". Intervals are 95 %.

Streaming perplexity (rows S2 and S3 of the notes; Xiao et al. 2023, arXiv 2309.17453): eval
`streaming_perplexity`, texts of 2 048 tokens, every token after the first 32 counted; StreamingLLM
with a window of 256 tokens, positions by place in the cache. A ratio of perplexities is e to the
power of the mean difference in nats a token, with the paired bootstrap over texts. Texts are
passages of one book, so that some share sentences.

1. Without a sink the window loses: perplexity(0 sinks) / perplexity(4) lies above 1.5.
2. With 4 sinks little is lost: perplexity(4) / perplexity(whole cache) lies below 1.35.
3. One sink is enough, and so are four: perplexity(1) / perplexity(8) and perplexity(4) /
   perplexity(8) lie within 0.95 to 1.05.

Half of the KV heads streaming (row D1; Xiao et al. 2024, arXiv 2410.10819): the retrieval score of
a scan of needle prompts, for each KV head the largest of its query heads'; the lower half streams
with 4 sinks and the last 64 tokens. Eval `needle`, 512 and 1 024 tokens. Controls: 20 random
halves. Twice: streaming in every row (part "all") and behind the prompt alone ("decode", where
the first token of an answer still comes from a row that sees everything).

4. Right answers kept: accuracy / accuracy with the whole cache lies above 0.9. The interval is
   that of the paired change in accuracy (`paired_proportions`, which has a width even where
   nothing changed), over the accuracy with the whole cache. Not decided where that is below 0.3.
5. Random halves do not keep them: their mean share lies below 0.9, by the percentile bootstrap
   over prompts and halves.
6. Few random halves do as well: the empirical p of the answers' mean log-probability is 0.05 or
   less, 1/21 being the least that 20 halves can give. Its figure is the difference in nats between
   the chosen half and the mean of random ones, by the two-way bootstrap, which must exclude 0 too.
"""

import argparse
import sys
from typing import Any

import numpy as np
from verdicts import Finding, above, below, print_findings, progress, within

import headscope
from headscope.evals.measured import Measured
from headscope.evals.needle import Needle as NeedleTask
from headscope.evals.statistics import (
    empirical_p,
    paired_bootstrap,
    paired_proportions,
    two_way_bootstrap,
)
from headscope.evals.streaming_perplexity import StreamingPerplexity
from headscope.interventions.duo_attention import DuoAttention
from headscope.interventions.streaming_llm import StreamingLLM
from headscope.model import HeadModel
from headscope.prompts.needle import Needle
from headscope.run import Part

WINDOW, SINKS = 256, (0, 1, 4, 8)
SINK, RECENT, SPLITS, KEPT = 4, 64, 20, 0.9
STREAM, DUO = "StreamingLLM, arXiv 2309.17453", "DuoAttention, arXiv 2410.10819"


def streaming(model: HeadModel, samples: int, length: int) -> list[Finding]:
    # Every row is read as a step would be, so that the chunks need not be short.
    task = StreamingPerplexity(samples=samples, lengths=(length,), chunk=1024)
    changes = {f"{sink} sinks": StreamingLLM(sink, WINDOW) for sink in SINKS}
    measured = headscope.evaluate(model, [task], changes=changes, progress=progress).tasks[0]
    loss = {"whole": -measured.values(0)}
    loss |= {str(sink): -measured.values(at + 1) for at, sink in enumerate(SINKS)}
    for name, nats in loss.items():
        print(f"perplexity, sinks {name}: {np.exp(nats.mean()):.2f}", file=sys.stderr)

    def ratio(one: str, other: str) -> tuple[float, float, float]:
        change = loss[one] - loss[other]
        low, high = paired_bootstrap(change)
        return float(np.exp(change.mean())), float(np.exp(low)), float(np.exp(high))

    lost, kept = ratio("0", "4"), ratio("4", "whole")
    found = [
        Finding("perplexity(no sink) / perplexity(4 sinks) is above 1.5 (published: 5158 / 5.40)",
                STREAM, *lost, above(*lost[1:], 1.5)),
        Finding("perplexity(4 sinks) / perplexity(whole cache) is below 1.35",
                STREAM, *kept, below(*kept[1:], 1.35), 3),
    ]  # fmt: skip
    for sink in ("1", "4"):
        same = ratio(sink, "8")
        claim = f"perplexity({sink} sinks) / perplexity(8 sinks) is within 0.95 to 1.05"
        found.append(Finding(claim, STREAM, *same, within(*same[1:], (0.95, 1.05)), 3))
    return found


def random_halves(model: HeadModel, part: Part) -> list[DuoAttention]:
    rng = np.random.default_rng(0)
    every = [(layer, kv) for layer in model.layers for kv in range(model.n_kv_heads)]
    size = round(0.5 * len(every))
    halves = (rng.permutation(len(every))[:size] for _ in range(SPLITS))
    return [DuoAttention([every[i] for i in sorted(half)], SINK, RECENT, part) for half in halves]


def duo(model: HeadModel, samples: int, detect: int, lengths: tuple[int, ...]) -> list[Finding]:
    family = Needle(samples=detect, lengths=lengths, split="detect")
    head_map = headscope.scan(model, ["retrieval"], prompts=family, progress=progress)
    found: list[Finding] = []
    parts: tuple[Part, ...] = ("all", "decode")
    for part in parts:
        chosen = DuoAttention.from_map(head_map, "retrieval", 0.5, SINK, RECENT, part)
        changes = {"chosen": chosen}
        changes |= {f"random {i}": half for i, half in enumerate(random_halves(model, part))}
        task = NeedleTask(samples=samples, lengths=lengths, split="test")
        done = headscope.evaluate(model, [task], changes=changes, progress=progress).tasks[0]
        found += verdicts(done, f"half of the KV heads streaming, part {part!r}")
    return found


def verdicts(done: Measured, what: str, chosen: str = "those that retrieve least") -> list[Finding]:
    right = np.array([done.exact(i) for i in range(len(done.scores))], dtype=float)
    nats = np.array([done.values(i) for i in range(len(done.scores))])
    base = right[0].mean()
    floor = max(base, 1 / len(right[0]))
    change = right[1] - right[0]
    low, high = (1 + edge / floor for edge in paired_proportions(change))
    kept, spared = (float(1 + change.mean() / floor), low, high), shares(right[2:], right[0])
    first, second = above(low, high, KEPT), below(spared[1], spared[2], KEPT)
    if base < 0.3:
        first = second = f"undecided (whole cache: {base:.2f} right)"
    gap = float(nats[1].mean() - nats[2:].mean())
    low, high = two_way_bootstrap(nats[1], nats[2:])
    p = empirical_p(float(nats[1].mean()), nats[2:].mean(1))
    third = above(low, high, 0) if p <= 0.05 else "not reproduced"
    words = f"{what} (whole cache: {base:.2f} right)"
    return [
        Finding(f"{words}: {chosen} keep 0.9 of right answers",
                DUO, *kept, first),
        Finding(f"{what}: {SPLITS} random halves keep less than 0.9 on average",
                DUO, *spared, second),
        Finding(f"{what}: more nats for the answer than random halves, which do as well with "
                f"p = {p:.3f}", DUO, gap, low, high, third),
    ]  # fmt: skip


def shares(right: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Right answers of some halves over the whole cache's; over prompts and halves."""
    rng = np.random.default_rng(0)
    drawn: list[Any] = []
    for _ in range(10_000):
        prompts = rng.integers(len(base), size=len(base))
        sets = rng.integers(len(right), size=len(right))
        drawn.append(right[sets][:, prompts].mean() / max(base[prompts].mean(), 1 / len(base)))
    whole = right.mean() / max(base.mean(), 1 / len(base))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(whole), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=40, help="needle prompts")
    parser.add_argument("--texts", type=int, default=12, help="texts for perplexity")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a text")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024])
    options = parser.parse_args()
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    lengths = tuple(options.lengths)
    found = streaming(model, options.texts, options.length)
    found += duo(model, options.samples, max(10, options.samples // 2), lengths)
    print_findings(found)


if __name__ == "__main__":
    main()
