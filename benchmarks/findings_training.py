"""What studies find on a small model: pruning by gradients, agreement, shared circuits, codes.

    python benchmarks/findings_training.py --device cuda

The claims, and what decides each, were written before anything was measured, but for a trial of
this script with few samples. Heads are found on prompts of the split "detect"; pruning is measured
on needles of the split "test". Intervals are 95 %.

1. Pruning up to half of all heads, a tenth at a step, least important first (Michel et al. 2019,
   arXiv 1905.10650), keeps more of the answer than random orders: the mean share of right answers
   over the steps, less that of 19 random orders, lies above 0 (two-way bootstrap).
2. The same for the order by retrieval score, and for importance less retrieval (paired bootstrap).
3. A fifth of the heads can go (their figure for translation): the change in right answers at 20 %
   pruned by importance lies above -0.1 (our level).
4. Scores of retrieval-type probes agree: the mean rank correlation of every two, over heads, lies
   above 0.3 (our level; percentile bootstrap over heads). The matrix stands below the table.
5. Two tasks share heads: the share of the smaller circuit that is in the larger one, for IOI and
   coloured objects, lies within 0.68 to 0.88 (published for GPT-2 medium: 0.78); beside it the
   p-value of as many shared heads within layers by chance. No interval over pairs is known for
   this share: that of the Jaccard index is given, and the claim is not judged by it.
6. Discrete codes find IOI's circuit: the AUC of heads of the circuit (denoising, q below 0.05) by
   `discrete_sae` lies above 0.5 (percentile bootstrap over heads).
"""

import argparse
from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from verdicts import Finding, above, print_findings, progress

import headscope
from headscope.circuits import overlap_of
from headscope.evals.needle import Needle as NeedleTask
from headscope.evals.pruning import prune
from headscope.evals.questions import Questions
from headscope.headmap import HeadMap
from headscope.model import HeadModel
from headscope.probes.circuit_overlap import CircuitOverlap
from headscope.probes.discrete_sae import DiscreteSae
from headscope.probes.duo_gate import DuoGate
from headscope.probes.importance import Importance
from headscope.probes.moa_span import MoaSpan

MICHEL, MERULLO = "Michel et al. 2019, arXiv 1905.10650", "Merullo et al. 2023, arXiv 2310.08744"
BUI = "O'Neill & Bui 2024, arXiv 2405.12522"
# By what they are said to find: heads that bring back what stands far away.
RETRIEVAL = (
    "retrieval", "locos", "echo", "razor_induction", "duo_onthefly", "snapkv_far", "sentence",
    "longheads", "needle_mass", "duo_gate", "importance", "moa_span",
)  # fmt: skip
Values = dict[str, np.ndarray]


def over_heads(figure: Callable[[Values], float], values: Values) -> tuple[float, float, float]:
    """A figure of scores of all heads, and its percentile interval over heads."""
    rng, drawn, n = np.random.default_rng(0), [], len(next(iter(values.values())))
    for _ in range(1000):
        some = rng.integers(n, size=n)
        drawn.append(figure({name: value[some] for name, value in values.items()}))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return figure(values), float(low), float(high)


def pruning(model: HeadModel, head_map: HeadMap, samples: int) -> list[Finding]:
    task = NeedleTask(samples=samples, lengths=(256,), split="test")
    orders = ["importance_in_layer", "importance", "retrieval", "random"]
    result = prune(model, task, orders=orders, scores=head_map, progress=progress)
    areas = result.areas().set_index("order")
    found = []
    for name in orders[:-1]:
        gap = [float(areas.loc[name, f"exact.beyond{end}"]) for end in ("", ".low", ".high")]
        found.append(
            Finding(
                f"pruning up to half of the heads by {name} keeps more right answers than 19 "
                f"random orders ({areas.loc[name, 'exact']:.2f} on average; p = "
                f"{areas.loc[name, 'exact.p']:.2g})", MICHEL, *gap, above(*gap[1:], 0),
            )
        )  # fmt: skip
    pairs = result.differences().set_index(["first", "second"])
    for first in orders[:2]:
        row = pairs.loc[(first, "retrieval")]
        gap = [float(row[f"exact{end}"]) for end in ("", ".low", ".high")]
        found.append(
            Finding(
                f"{first} keeps more right answers than the order by retrieval", MICHEL, *gap,
                above(*gap[1:], 0),
            )
        )  # fmt: skip
    table = result.table()
    print(table[["order", "pruned", "exact", "exact.low", "exact.high", "value"]].to_string(),
          flush=True)  # fmt: skip
    fifth = table[(table["order"] == "importance_in_layer") & (table["share"].round(2) == 0.2)]
    change = [float(fifth[f"exact.change{end}"].iloc[0]) for end in ("", ".low", ".high")]
    claim = "right answers at a fifth of the heads pruned by importance_in_layer fall by under 0.1"
    return [*found, Finding(claim, MICHEL, *change, above(*change[1:], -0.1))]


def matrix(head_map: HeadMap) -> tuple[list[Finding], str]:
    names = [name for name in RETRIEVAL if name in head_map.scores]
    values = {name: head_map[name].mean().ravel() for name in names}

    def agreed(some: Values) -> float:
        ranks = spearmanr(np.stack(list(some.values()), 1))[0]
        return float(np.nanmean([ranks[i, j] for i, j in combinations(range(len(some)), 2)]))

    mean = over_heads(agreed, values)
    ranks = spearmanr(np.stack(list(values.values()), 1))[0]
    head = "| rank correlation | " + " | ".join(f"`{name}`" for name in names) + " |"
    rows = [head, "|---" * (len(names) + 1) + "|"]
    for i, name in enumerate(names):
        cells = " | ".join("" if i == j else f"{ranks[i, j]:.2f}" for j in range(len(names)))
        rows.append(f"| `{name}` | {cells} |")
    claim = f"the {len(names)} scores of retrieval type agree: mean rank correlation above 0.3"
    return [Finding(claim, "our level", *mean, above(*mean[1:], 0.3))], "\n".join(rows)


def circuits(model: HeadModel, samples: int) -> list[Finding]:
    family = Questions(tasks=("ioi", "colored_objects"), samples=samples)
    shared = headscope.scan(model, [CircuitOverlap(prompts=family)], progress=progress)
    both = overlap_of(shared)
    low, high = both.interval()
    sizes = f"{len(both.shared)} of {len(both.a.found)} and {len(both.b.found)} heads"
    claim = (
        f"IOI and coloured objects share heads ({sizes}, by chance within layers "
        f"{both.expected():.1f}, p = {both.p():.2g}; published: 0.78 of the smaller circuit); "
        "Jaccard index"
    )
    verdict = "not judged" if both.a.found and both.b.found else "not judged: a circuit is empty"
    found = [Finding(claim, MERULLO, both.jaccard(), low, high, verdict)]
    codes = headscope.scan(model, [DiscreteSae()], progress=progress)["discrete_sae"]
    circuit = set(both.a.found)
    values = {
        "in": np.array([head in circuit for head in shared.heads()]),
        "score": codes.mean().ravel(),
    }

    def area(some: Values) -> float:
        known = len(set(some["in"])) > 1
        return float(roc_auc_score(some["in"], some["score"])) if known else float("nan")

    auc = over_heads(area, values)
    claim = f"IOI's circuit ({len(circuit)} heads) has higher `discrete_sae` (AUC above 0.5)"
    return [*found, Finding(claim, BUI, *auc, above(*auc[1:], 0.5))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=40, help="needle questions")
    parser.add_argument("--pairs", type=int, default=64, help="pairs of both tasks together")
    parser.add_argument("--steps", type=int, default=DuoGate().steps, help="of the gates")
    options = parser.parse_args()
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    studies = [DuoGate(steps=options.steps), Importance(), MoaSpan()]
    short = [name for name in RETRIEVAL if name not in {probe.name for probe in studies}]
    head_map = headscope.scan(model, [*short, *studies], progress=progress)
    agreement, table = matrix(head_map)
    found = agreement + circuits(model, options.pairs) + pruning(model, head_map, options.samples)
    print_findings(found)
    print("\n" + table)


if __name__ == "__main__":
    main()
