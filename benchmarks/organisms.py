"""What every probe makes of heads that were built by hand: the table of the planted truths.

    python benchmarks/organisms.py > benchmarks/results/organisms.md
    python benchmarks/organisms.py --seeds 20 40

The truths stand in `tests/organism_truths.py`. For each probe: the area under the ROC curve over
heads, its mean over seeds with a percentile bootstrap of 95 % over seeds, and the least of any
seed; then the mean score of every kind of head over its heads and the seeds.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from environment import describe

import headscope

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from organism_truths import ORACLES, REVISED, TRUTHS, planted_probes
from organisms import Organism, learned_position_organism, whole_organism

BUILDERS = {"whole": whole_organism, "learned positions": learned_position_organism}
RESAMPLES = 2000

Measured = tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]


def measure(build: Callable[[int], Organism], seeds: range) -> Measured:
    """By probe: the area of each seed, and the scores of the heads of every kind."""
    areas: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in seeds:
        organism = build(seed)
        model = headscope.load(organism.hf, organism.tokenizer)
        chosen = planted_probes(model, set(organism.kinds.values()))
        head_map = headscope.scan(model, chosen, seed=seed)
        for probe in chosen:
            mean = head_map[probe.name].mean()
            area = organism.auc(probe.name, torch.from_numpy(mean))
            areas[probe.name] += [] if area is None else [area]
            for place, kind in organism.kinds.items():
                scores[probe.name][kind].append(float(mean[place]))
        print(f"seed {seed}", file=sys.stderr, flush=True)
    return areas, scores


def interval(values: list[float]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def print_areas(areas: dict[str, list[float]]) -> None:
    print("| probe | mean | 95 % | least | below 0.95 |\n|---|---|---|---|---|")
    for name, values in areas.items():
        low, high = interval(values)
        short = sum(value < 0.95 for value in values)
        print(
            f"| {name} | {np.mean(values):.3f} | {low:.3f}–{high:.3f} | {min(values):.3f} "
            f"| {short} of {len(values)} |"
        )


def print_scores(scores: dict[str, dict[str, list[float]]]) -> None:
    """A table for the probes of each prompt family, a row for every kind."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in scores:
        families[type(TRUTHS[name].prompts).__name__.strip("_").lower()].append(name)
    for family, names in families.items():
        print(f"\nOn {family}:\n\n| kind | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        for kind in sorted(scores[names[0]]):
            cells = [_cell(name, kind, scores[name][kind]) for name in names]
            print(f"| {kind} | {' | '.join(cells)} |")


def _cell(name: str, kind: str, values: list[float]) -> str:
    mean = f"{np.mean(values):.3g}"
    if kind in TRUTHS[name].high:
        return f"**{mean}**"
    return f"({mean})" if kind in TRUTHS[name].either else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 20), metavar=("FIRST", "STOP"))
    seeds = range(*parser.parse_args().seeds)
    torch.set_grad_enabled(False)
    print("```")
    describe()
    print("```")
    for name, build in BUILDERS.items():
        areas, scores = measure(build, seeds)
        print(f"\n## {name}: seeds {seeds.start} to {seeds.stop - 1}\n")
        print_areas(areas)
        print("\nMean scores; bold must be high, what is in brackets may be either.")
        print_scores(scores)
    print("\n## Not counted\n")
    for name, truth in TRUTHS.items():
        if truth.either:
            print(f"- {name}: {', '.join(sorted(truth.either))}: {truth.why}.")
    for name, oracle in ORACLES.items():
        print(f"- {name} has no planted heads; what stands for them: {oracle}.")
    print("\n## Mistakes in the table that measurements showed\n")
    for name, change in REVISED.items():
        print(f"- {name}: {change}.")


if __name__ == "__main__":
    main()
