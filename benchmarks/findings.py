"""Published figures that a small model can test, from one scan: each with interval and verdict.

The claims and the rule of each verdict stand below, written before the scan was made. Intervals are
those of the percentile bootstrap over prompts, 95 %.

    headscope scan smollm2 --probes all --out runs/atlas
    python benchmarks/findings.py runs/atlas > docs/findings.md
    python benchmarks/join_findings.py  # puts the part on interventions back
"""

import sys
from collections.abc import Callable

import numpy as np
from environment import command, environment
from scipy.stats import hypergeom
from sklearn.metrics import roc_auc_score
from verdicts import Finding, above, within

from headscope.headmap import HeadMap

RESAMPLES = 2000
RETRIEVAL, SINK = 0.1, 0.3
EARLY = 2  # layers below this one park little attention, in every model that was looked at


def bootstrap(
    values: dict[str, np.ndarray], figure: Callable[[dict[str, np.ndarray]], float]
) -> tuple[float, float, float]:
    """A figure of mean scores, and its interval; each score's prompts are drawn on their own.

    Args:
        values: by score, [prompt, ...].
    """
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        means = {}
        for name, value in values.items():
            counts = rng.multinomial(len(value), np.full(len(value), 1 / len(value)))
            means[name] = np.tensordot(counts / len(value), value.astype(np.float64), 1)
        drawn.append(figure(means))
    whole = figure({name: value.mean(0, dtype=np.float64) for name, value in values.items()})
    return whole, *np.nanquantile(drawn, [0.025, 0.975]).tolist()


def retrieval_shares(head_map: HeadMap) -> list[Finding]:
    values = {"retrieval": head_map["retrieval"].values}
    share = bootstrap(values, lambda m: 100 * (m["retrieval"] > RETRIEVAL).mean())
    zeros = bootstrap(values, lambda m: 100 * (m["retrieval"] == 0).mean())
    source = "seven released score files of Wu et al. 2024"
    return [
        Finding(
            "2.1 to 6.2 % of heads have a retrieval score above 0.1", source,
            *share, within(*share[1:], (2.1, 6.2)), 1,
        ),
        Finding(
            "49 to 73 % of heads have a retrieval score of exactly 0 (over 221 to 586 samples; "
            "fewer prompts leave more zeros)",
            source, *zeros, within(*zeros[1:], (49.4, 73.2)), 1,
        ),
    ]  # fmt: skip


def overlap(head_map: HeadMap) -> list[Finding]:
    values = {name: head_map[name].values for name in ("retrieval", "induction")}
    k = int((head_map["retrieval"].mean() > RETRIEVAL).sum())

    def shared(means: dict[str, np.ndarray]) -> float:
        tops = [set(np.argsort(-mean.ravel(), kind="stable")[:k]) for mean in means.values()]
        return float(len(tops[0] & tops[1]))

    n = head_map["retrieval"].mean().size
    found = bootstrap(values, shared)
    chance = k * k / n
    p = float(hypergeom.sf(found[0] - 1, n, k, k))
    return [
        Finding(
            f"the top {k} by retrieval and by induction share more heads than chance ({chance:.1f} "
            f"of {k}; hypergeometric p = {p:.2g})",
            "RazorAttention, arXiv 2407.15891, which keeps induction heads as retrieval heads",
            *found, above(found[1], found[2], chance), 0,
        )
    ]  # fmt: skip


def sinks(head_map: HeadMap) -> list[Finding]:
    late = [i for i, layer in enumerate(head_map.layers) if layer >= EARLY]
    found = []
    for name, words in (("sink_bos", "behind a start token"), ("sink_bare", "without one")):
        share = bootstrap(
            {name: head_map[name].values},
            lambda m, name=name: 100 * (m[name][late] > SINK).mean(),
        )
        found.append(
            Finding(
                f"in layers from {EARLY} on, most heads (over 50 %) give the first token more than "
                f"{SINK} of their attention, {words}",
                "after Xiao et al. 2023, arXiv 2309.17453, and Gu et al. 2024, arXiv 2410.10781",
                *share, above(share[1], share[2], 50), 1,
            )
        )  # fmt: skip
    return found


def basin(head_map: HeadMap) -> tuple[list[Finding], list[str]]:
    curves = head_map.curves["basin_slots"]  # [prompt, layer, head, slot]
    mean = curves.reshape(len(curves), -1, curves.shape[-1]).mean(1, dtype=np.float64)
    third = mean.shape[1] // 3
    middle = slice(third, mean.shape[1] - third)
    findings = []
    for slot, word in ((0, "first"), (-1, "last")):
        ratio = bootstrap(
            {"slots": mean}, lambda m, slot=slot: m["slots"][slot] / m["slots"][middle].mean()
        )
        findings.append(
            Finding(
                f"the {word} document gets more attention than those in the middle (ratio above 1)",
                "Attention Basin, arXiv 2508.05128; Found in the Middle, arXiv 2406.16008",
                *ratio, above(ratio[1], ratio[2], 1),
            )
        )  # fmt: skip
    cells = []
    for slot in range(mean.shape[1]):
        level, low, high = bootstrap(
            {"slots": mean}, lambda m, slot=slot: m["slots"][slot] / m["slots"].mean()
        )
        cells.append(f"| {slot + 1} | {level:.2f} | {low:.2f} to {high:.2f} |")
    table = [
        "", "## The slot curve", "",
        "Attention of the last prompt row on the documents in each slot, per token and over all "
        "heads, relative to its mean over slots.", "",
        "| slot | attention | 95 % |", "|---|---|---|", *cells,
    ]  # fmt: skip
    return findings, table


def qada(head_map: HeadMap) -> list[Finding]:
    names = ("qada_correlation", "qada_false_negative", "qada_false_positive")
    # Three scores of the same prompts are drawn together.
    values = {"qada": np.stack([head_map[name].values for name in names], axis=1)}
    correlation = bootstrap(values, lambda m: float(np.median(m["qada"][0])))
    gap = bootstrap(values, lambda m: float((m["qada"][2] - m["qada"][1]).mean()))
    negative, positive = (float(head_map[name].mean().mean()) for name in names[1:])
    source = "Donhauser et al. 2025, arXiv 2502.09647 (abstract and reviews)"
    return [
        Finding(
            "the bulk mass estimated from the keys' mean and covariance follows the exact one "
            "(median over heads of the correlation of their logarithms above 0.5: our level)",
            source, *correlation, above(correlation[1], correlation[2], 0.5),
        ),
        Finding(
            f"fewer false negatives than false positives (difference of the rates above 0; "
            f"{negative:.3f} against {positive:.3f})",
            source, *gap, above(gap[1], gap[2], 0), 3,
        ),
    ]  # fmt: skip


def on_the_fly(head_map: HeadMap) -> list[Finding]:
    groups = head_map.n_kv_heads
    values = {name: head_map[name].values for name in ("duo_onthefly", "retrieval")}

    def by_kv(mean: np.ndarray, join: Callable[..., np.ndarray]) -> np.ndarray:
        return join(mean.reshape(len(mean), groups, -1), axis=-1).ravel()

    def auc(means: dict[str, np.ndarray]) -> float:
        truth = by_kv(means["retrieval"], np.max) > RETRIEVAL
        if truth.all() or not truth.any():
            return float("nan")
        return float(roc_auc_score(truth, by_kv(means["duo_onthefly"], np.mean)))

    found = bootstrap(values, auc)
    return [
        Finding(
            "KV heads that hold a retrieval head rank high by the gradient-free score (AUC above "
            "0.5)",
            "kvpress, on-the-fly scoring after DuoAttention, arXiv 2410.10819",
            *found, above(found[1], found[2], 0.5),
        )
    ]  # fmt: skip


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Name one run folder, e.g.: python benchmarks/findings.py runs/atlas")
    head_map = HeadMap.load(sys.argv[1])
    slots, table = basin(head_map)
    findings = [
        *retrieval_shares(head_map), *overlap(head_map), *sinks(head_map), *slots, *qada(head_map),
        *on_the_fly(head_map),
    ]  # fmt: skip
    prompts = ", ".join(
        f"{family.family}: {len(family.digests)} ({sum(family.accepted)} counted)"
        for family in head_map.info.families.values()
    )
    lines = [
        "# Findings", "",
        f"Published figures beside those of {head_map.info.model.name}, made by the two commands "
        "below. A claim is reproduced if the whole interval says so, not reproduced if the whole "
        "interval says the opposite, and undecided otherwise. The model has 135 million parameters "
        "where the papers' have billions: a verdict is about the claim on this model.", "",
        "```sh", head_map.info.command, command(), "```", "", environment(), "",
        f"Prompts: {prompts}.", "",
        "| claim | source | measured, 95 % interval | verdict |", "|---|---|---|---|",
        *(finding.row() for finding in findings), *table,
    ]  # fmt: skip
    print("\n".join(lines))


if __name__ == "__main__":
    main()
