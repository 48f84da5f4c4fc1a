"""DuoAttention's gates on a small model: do they find what retrieves, and may the rest stream?

    python benchmarks/findings_gates.py --device cuda

The claims, and what decides each, were written before anything was measured, but for a trial of
this script with 8 steps, 6 questions and 2 random halves. Gates are trained on passkeys of the
split "detect" with the defaults of the probe; retrieval scores are those of needle prompts of that
split; what streaming costs is measured on needles of the split "test". Intervals are 95 %.

1. KV heads that hold a retrieval head (a query head with a retrieval score above 0.1; Wu et al.
   2024, arXiv 2404.15574) rank high by their gate: the AUC lies above 0.5, by the percentile
   bootstrap over KV heads. Its p-value is that of the rank-sum test, one-sided.
2. Half of the KV heads streaming, chosen by gates, against the whole cache and 20 random halves:
   the three claims of `findings_cache.py`, with the same rules, sink and window.
3. In models with grouped heads gates are not two-peaked: their median lies within 0.85 to 1
   (released gates of four such models: 0.951 to 0.996).
4. Gates of two trainings with other orders of prompts agree: Spearman's correlation over KV heads
   lies above 0.5 (our level), by the percentile bootstrap over KV heads.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
from findings_cache import RECENT, SINK, random_halves, verdicts
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.metrics import roc_auc_score
from verdicts import Finding, above, print_findings, progress, within

import headscope
from headscope.evals.needle import Needle as NeedleTask
from headscope.headmap import HeadMap
from headscope.interventions.duo_attention import DuoAttention
from headscope.model import HeadModel
from headscope.probes.duo_gate import DuoGate
from headscope.prompts.needle import Needle
from headscope.run import Part

DUO = "DuoAttention, arXiv 2410.10819"
RETRIEVAL = 0.1


def over_heads(
    figure: Callable[[np.ndarray, np.ndarray], float], first: np.ndarray, second: np.ndarray
) -> tuple[float, float, float]:
    """A figure of two scores of all KV heads, and its interval over KV heads."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(2000):
        some = rng.integers(len(first), size=len(first))
        if len(set(first[some])) > 1:
            drawn.append(figure(first[some], second[some]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure(first, second), float(low), float(high)


def gates(head_map: HeadMap, retrieval: HeadMap) -> list[Finding]:
    kv_heads = head_map.n_kv_heads
    found = head_map["duo_gate"]
    gate = found.by_kv_head(kv_heads).ravel()
    holds = (retrieval["retrieval"].by_kv_head(kv_heads) > RETRIEVAL).ravel()
    area = over_heads(lambda y, x: float(roc_auc_score(y, x)), holds, gate)
    p = float(mannwhitneyu(gate[holds], gate[~holds], alternative="greater").pvalue)
    quartiles = np.quantile(gate, [0.25, 0.5, 0.75])
    print(f"gates: quartiles {quartiles.round(3)}, {(gate == 0).mean():.0%} at 0", file=sys.stderr)
    rng = np.random.default_rng(0)
    medians = np.median(gate[rng.integers(len(gate), size=(2000, len(gate)))], axis=1)
    edges = [float(edge) for edge in np.quantile(medians, [0.025, 0.975])]
    median = (float(quartiles[1]), *edges)
    one, other = (
        each[:, :: found.values.shape[2] // kv_heads].ravel() for each in found.values[:2]
    )
    same = over_heads(lambda a, b: float(spearmanr(a, b)[0]), one, other)
    return [
        Finding(
            f"KV heads that hold a retrieval head ({int(holds.sum())} of {len(gate)}) have higher "
            f"gates (AUC above 0.5; rank-sum p = {p:.2g})", DUO, *area, above(*area[1:], 0.5),
        ),
        Finding("the median gate lies within 0.85 to 1", DUO, *median, within(*edges, (0.85, 1))),
        Finding(
            "gates of two trainings agree (rank correlation above 0.5: our level)", DUO, *same,
            above(*same[1:], 0.5),
        ),
    ]  # fmt: skip


def streaming(model: HeadModel, head_map: HeadMap, samples: int, splits: int) -> list[Finding]:
    found: list[Finding] = []
    parts: tuple[Part, ...] = ("all", "decode")
    for part in parts:
        chosen = DuoAttention.from_map(head_map, "duo_gate", 0.5, SINK, RECENT, part)
        changes = {"chosen": chosen}
        halves = random_halves(model, part)[:splits]
        changes |= {f"random {i}": half for i, half in enumerate(halves)}
        task = NeedleTask(samples=samples, lengths=(512, 1024), split="test")
        done = headscope.evaluate(model, [task], changes=changes, progress=progress).tasks[0]
        found += verdicts(
            done, f"half of the KV heads streaming by their gates, part {part!r}",
            "those with the lowest gates",
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=40, help="needle prompts")
    parser.add_argument("--steps", type=int, default=DuoGate().steps)
    parser.add_argument("--splits", type=int, default=20, help="random halves")
    options = parser.parse_args()
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    family = Needle(samples=20, lengths=(512, 1024), split="detect")
    retrieval = headscope.scan(model, ["retrieval"], prompts=family, progress=progress)
    probe = DuoGate(steps=options.steps, repeats=2)
    head_map = headscope.scan(
        model, [probe], progress=progress, announce=lambda said: print(said, file=sys.stderr)
    )
    found = gates(head_map, retrieval)
    print_findings(found + streaming(model, head_map, options.samples, options.splits))


if __name__ == "__main__":
    main()
