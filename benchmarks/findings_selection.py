"""What a small model loses by decoding from few keys, or by reading documents apart.

    python benchmarks/findings_selection.py --device cuda

The claims, and what decides each, were written before anything was measured. Trials of this script
then ran on six prompts of "tune" (needles of 160 tokens, on which TidalDecode and LycheeDecode with
32 keys lost most right answers, and 4 documents in 224 tokens), and the overlaps of claim 3 on six
needles of 160 tokens of "test". Nothing was changed after them but the table, which also shows
TidalDecode with 4 sinks and 16 recent keys besides, without a verdict. Intervals are 95 %, over
prompts: paired bootstrap for nats, paired proportions for right answers. Whatever is chosen is
chosen on the split "tune" (half as many prompts), heads are found on "detect", and everything is
judged on "test".

Needles (eval `needle`, 512 and 1 024 tokens, five-digit numbers). The first token of an answer is
said by the prompt's last row, which always reads every key; the rest by rows that select.

TidalDecode (Yang et al. 2024, arXiv 2410.05076; row T1 of the notes): layer 2 chooses k keys for
each head, one later layer of 3, 5, ..., 27 chooses anew; that layer is the one with the most nats
for the answer on "tune", summed over the three k.

1. For k = 16, 32 and 64, right answers kept: accuracy / accuracy in full lies above 0.9. Not
   decided where the latter is below 0.3.
2. The correction helps: with k = 32 the answer has more nats than without one.

LycheeDecode (Lin et al. 2026, arXiv 2602.04541; row T2): heads differ in whether the next layer's
head of their number looks at the same keys. Overlap: keys that are among the 32 of largest logit in
both, over 32, in the prompt's last row.

3. In each layer the heads of the highest and of the lowest overlap on "tune" differ on "test" by
   more than 0.3, on average over layers (published: from 0 to 1 in one layer of a larger model).
4. With the 27 heads of highest retrieval score (a tenth) retrieving, k = 32, right answers are
   kept, judged as in 1.
5. They have more nats for the answer than 20 random sets of as many heads: the empirical p is 0.05
   or less, 1/21 being the least possible, and the two-way bootstrap of the difference excludes 0.

ParallelContext (Zhang et al. 2024, arXiv 2412.16545) on eval `documents`, 8 documents in 768
tokens, each a block; positions of the prompt. Margin: log-odds of the right number, in nats.
Entropy: of the prompt's last 16 rows, in nats, mean over rows, heads and layers.

6. Blocks without a shared sink have a lower margin than full attention.
7. They have a higher entropy than full attention.
8. A shared sink (the tokens before the first document) lowers that entropy.
9. It raises the margin.
10. Reading only the best 1, 2 or 4 blocks of each layer (chosen on "tune" by the margin) besides
    raises the margin further.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from verdicts import Finding, above, below, print_findings, progress

import headscope
from headscope.engines import Attended
from headscope.evals.documents import Documents
from headscope.evals.gates import mean_interval
from headscope.evals.measured import Measured
from headscope.evals.needle import Needle
from headscope.evals.statistics import empirical_p, paired_proportions, two_way_bootstrap
from headscope.interventions.lychee_decode import LycheeDecode
from headscope.interventions.parallel_context import ParallelContext
from headscope.interventions.selecting import row_logits, top_keys
from headscope.interventions.tidal_decode import TidalDecode
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.needle import Needle as NeedlePrompts

BUDGETS, CORRECTIONS, CHOOSER, KEPT = (16, 32, 64), tuple(range(3, 28, 2)), 2, 0.9
K, SETS, SHARE, ROWS = 32, 20, 0.1, 16
DOCUMENTS = Documents(split="test")
TIDAL, LYCHEE = "TidalDecode, arXiv 2410.05076", "LycheeDecode, arXiv 2602.04541"
PARALLEL = "Zhang et al. 2024, arXiv 2412.16545"


def right(done: Measured, condition: int) -> np.ndarray:
    exact = done.exact(condition)
    assert exact is not None
    return exact.astype(float)


def kept(claim: str, source: str, done: Measured, condition: int, judged: bool = True) -> Finding:
    """Right answers under a condition over those without it."""
    base, change = right(done, 0), right(done, condition) - right(done, 0)
    floor = max(base.mean(), 1 / len(base))
    low, high = (1 + edge / floor for edge in paired_proportions(change))
    verdict = above(low, high, KEPT)
    if base.mean() < 0.3:
        verdict = f"undecided (in full: {base.mean():.2f} right)"
    if not judged:
        verdict = "not judged"
    words = f"{claim} (in full: {base.mean():.2f} right)"
    return Finding(words, source, float(1 + change.mean() / floor), low, high, verdict)


def more(claim: str, source: str, change: np.ndarray, level: float = 0.0) -> Finding:
    low, high = mean_interval(change)
    return Finding(claim, source, float(change.mean()), low, high, above(low, high, level), 3)


def less(claim: str, source: str, change: np.ndarray) -> Finding:
    low, high = mean_interval(change)
    return Finding(claim, source, float(change.mean()), low, high, below(low, high, 0), 3)


def tidal(model: HeadModel, task: Needle) -> list[Finding]:
    swept = {
        (k, layer): TidalDecode(k, CHOOSER, (layer,)) for k in BUDGETS for layer in CORRECTIONS
    }
    tune = replace(task, split="tune", samples=max(6, task.samples // 2))
    changes = {f"k {k}, layer {layer}": method for (k, layer), method in swept.items()}
    done = headscope.evaluate(model, [tune], changes=changes, progress=progress).tasks[0]
    nats = {key: done.values(at).mean() for at, key in enumerate(swept, 1)}
    for (k, layer), value in nats.items():
        print(f"tune, k {k}, correction {layer}: {value:.3f} nats", file=sys.stderr)
    best = max(CORRECTIONS, key=lambda layer: sum(nats[k, layer] for k in BUDGETS))
    changes = {f"k {k}": swept[k, best] for k in BUDGETS}
    changes["no correction"] = TidalDecode(K, CHOOSER, ())
    changes["edges"] = replace(swept[K, best], sink=4, recent=16)
    done = headscope.evaluate(model, [task], changes=changes, progress=progress).tasks[0]
    found = [
        kept(f"{k} keys, chosen in layers {CHOOSER} and {best}: 0.9 of right answers kept",
             TIDAL, done, at)
        for at, k in enumerate(BUDGETS, 1)
    ]  # fmt: skip
    change = done.values(1 + BUDGETS.index(K)) - done.values(1 + len(BUDGETS))
    claim = f"{K} keys: more nats for the answer with a correction in layer {best} than without"
    edges = f"the same with {K} keys, 4 sinks and 16 recent keys"
    return [
        *found,
        more(claim, TIDAL, change),
        kept(edges, TIDAL, done, 2 + len(BUDGETS), judged=False),
    ]


@torch.no_grad()
def overlaps(model: HeadModel, prompt: Prompt) -> np.ndarray:
    """Share of a head's keys that the next layer's head of its number has too: [layer, head]."""
    chosen: list[torch.Tensor] = []

    def keep(attended: Attended) -> None:
        row = attended.attention.n_queries - 1
        chosen.append(top_keys(row_logits(attended.attention, row), K)[0].cpu())

    with model.observed(keep):
        model.forward(list(prompt.token_ids), last=1)
    tops = torch.stack(chosen)
    return ((tops[:-1] & tops[1:]).sum(-1) / K).double().numpy()


def lychee(model: HeadModel, task: Needle) -> list[Finding]:
    each: dict[str, np.ndarray] = {}
    for split, samples in (("tune", max(6, task.samples // 2)), ("test", task.samples)):
        items = replace(task, split=split, samples=samples).items(model.tokenizer)  # pyright: ignore[reportArgumentType]
        each[split] = np.array([overlaps(model, item.prompt) for item in items])
    mean = each["tune"].mean(0)
    place = np.arange(len(mean))
    spread = (each["test"][:, place, mean.argmax(1)] - each["test"][:, place, mean.argmin(1)]).mean(
        1
    )
    family = NeedlePrompts(samples=max(10, task.samples // 2), lengths=task.lengths, split="detect")
    head_map = headscope.scan(model, ["retrieval"], prompts=family, progress=progress)
    chosen = LycheeDecode.from_map(head_map, "retrieval", SHARE, k=K)
    rng, every = np.random.default_rng(0), head_map.heads()
    drawn = [rng.permutation(len(every))[: len(chosen.heads)] for _ in range(SETS)]
    changes = {"retrieval": chosen}
    changes |= {
        f"random {at}": LycheeDecode([every[i] for i in sorted(some)], k=K)
        for at, some in enumerate(drawn)
    }
    done = headscope.evaluate(model, [task], changes=changes, progress=progress).tasks[0]
    nats = np.array([done.values(at) for at in range(1, len(done.scores))])
    low, high = two_way_bootstrap(nats[0], nats[1:])
    p = empirical_p(float(nats[0].mean()), nats[1:].mean(1))
    verdict = above(low, high, 0) if p <= 0.05 else "not reproduced"
    heads = f"{len(chosen.heads)} of {len(every)} heads retrieve {K} keys for those above them"
    return [
        more(f"overlap of {K} keys with the next layer: the most and the least overlapping head of "
             f"a layer differ by more than 0.3 (all heads: {each['test'].mean():.2f})",
             LYCHEE, spread, 0.3),
        kept(f"{heads}: 0.9 of right answers kept", LYCHEE, done, 1),
        Finding(f"{heads}: more nats for the answer than random sets, which do as well with "
                f"p = {p:.3f}", LYCHEE, float(nats[0].mean() - nats[1:].mean()), low, high,
                verdict, 3),
    ]  # fmt: skip


@torch.no_grad()
def entropy(model: HeadModel, method: ParallelContext | None, prompt: Prompt) -> float:
    """Mean over layers, heads and the prompt's last rows, in nats."""
    found: list[float] = []

    def look(attended: Attended) -> None:
        n = attended.attention.n_queries
        found.append(float(attended.attention.row_stats(queries=range(n - ROWS, n)).entropy.mean()))

    tokens = list(prompt.token_ids)
    if method is None:
        with model.observed(look):
            model.forward(tokens, prompt_length=len(tokens), last=1)
    else:
        bound, _ = method.prepared(model, prompt)
        with bound(model), model.observed(look):
            model.forward(tokens, prompt_length=len(tokens), last=1)
    return float(np.mean(found))


def parallel(model: HeadModel, samples: int) -> list[Finding]:
    task = replace(DOCUMENTS, samples=samples)
    selective = {f"best {n}": ParallelContext(selective=n) for n in (1, 2, 4)}
    tune = replace(task, split="tune", samples=max(6, samples // 2))
    done = headscope.evaluate(model, [tune], changes=selective, progress=progress).tasks[0]
    margins = {name: done.values(at).mean() for at, name in enumerate(selective, 1)}
    print("tune, margins:", margins, file=sys.stderr)
    best = max(margins, key=lambda name: margins[name])
    changes = {
        "apart": ParallelContext(shared_sink=False),
        "shared": ParallelContext(),
        best: selective[best],
    }
    done = headscope.evaluate(model, [task], changes=changes, progress=progress).tasks[0]
    names = ["full", *changes]
    margin = {name: done.values(at) for at, name in enumerate(names)}
    share = ", ".join(f"{name} {right(done, at).mean():.2f}" for at, name in enumerate(names))
    prompts = [item.prompt for item in task.items(model.tokenizer)]
    nats = {
        name: np.array([entropy(model, changes.get(name), prompt) for prompt in prompts])
        for name in names
    }
    for name, values in nats.items():
        print(
            f"{name}: entropy {values.mean():.3f}, margin {margin[name].mean():.3f}",
            file=sys.stderr,
        )
    return [
        less(f"documents read apart: a lower margin than in full (right answers: {share})",
             PARALLEL, margin["apart"] - margin["full"]),
        more("documents read apart: a higher entropy of the last rows than in full "
             f"({nats['full'].mean():.2f} nats)", PARALLEL, nats["apart"] - nats["full"]),
        less("a shared sink lowers that entropy", PARALLEL, nats["shared"] - nats["apart"]),
        more("a shared sink raises the margin", PARALLEL, margin["shared"] - margin["apart"]),
        more(f"reading the {best} blocks of each layer raises the margin further", PARALLEL,
             margin[best] - margin["shared"]),
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024])
    options = parser.parse_args(argv)
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    task = Needle(samples=options.samples, lengths=tuple(options.lengths), split="test")
    found = [*tidal(model, task), *lychee(model, task), *parallel(model, options.samples)]
    print_findings(found)


if __name__ == "__main__":
    main()
