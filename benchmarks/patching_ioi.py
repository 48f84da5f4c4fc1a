"""Which heads carry the answer of indirect object identification in the built-in model?

Named before anything was measured: the top K heads of each map, found on pairs of the split
"detect", are tested together on those of "test" beside random sets of each kind. Where the K heads
leave no layer-matched set (they fill half a layer), the most of them that leave enough are tested
against such sets.
"""

import time

import numpy as np
from environment import describe

import headscope
from headscope.evals.controls import HeadSet, layer_matched_sets, uniform_sets
from headscope.evals.ioi import Ioi
from headscope.evals.scoring import scored
from headscope.evals.statistics import wilson
from headscope.heads import Head, label
from headscope.model import HeadModel
from headscope.patch_map import PatchMap
from headscope.patching import joint_effect, patch_heads, path_patch

PAIRS, K, CONTROLS, SHOWN = 24, 10, 99, 15
SENDERS, RECEIVERS = 8, 8  # of path patching: the top heads, and the late ones of the top K


def main() -> None:
    describe()
    model = headscope.load("smollm2")
    for split in ("detect", "test"):
        base(model, split)
    maps = {}
    for direction in ("denoising", "noising"):
        start = time.perf_counter()
        found = patch_heads(model, Ioi(PAIRS, split="detect"), direction=direction)
        print(f"\n{found.claim()} ({time.perf_counter() - start:.0f} s)\n")
        print(found.top(SHOWN).drop(columns=["layer", "head"]).round(4).to_string(index=False))
        worst = found.table().nsmallest(3, "effect")
        against = ", ".join(
            f"{row['name']} {row['effect']:.3f}" for row in worst.to_dict("records")
        )
        print(f"Most against: {against}", flush=True)
        maps[direction] = found
    for found in maps.values():
        tested(model, found)
    paths(model, maps["noising"])


def base(model: HeadModel, split: str) -> None:
    """How many prompts the model answers with the indirect object."""
    task = Ioi(4 * PAIRS, split=split)
    scores = [scored(model, item)[0] for item in task.items(model.tokenizer)]
    right = [score.exact for score in scores]
    low, high = wilson(sum(right), len(right))
    margin = np.mean([score.margin for score in scores])
    print(
        f"{split}: {np.mean(right):.3f} [{low:.3f}, {high:.3f}] of {len(right)} prompts right, "
        f"mean margin {margin:.2f} nats",
        flush=True,
    )


def tested(model: HeadModel, found: PatchMap) -> None:
    """The joint effect of the top heads beside that of random sets."""
    every = found.heads
    print()
    k = K
    while len(layer_matched_sets(every, found.leading(k), CONTROLS)) < CONTROLS:
        k -= 1
    if k < K:
        print(
            f"The top {K} leave fewer than {CONTROLS} layer-matched sets; the top {k} are tested."
        )
    for kind, heads, sets in (
        ("uniform", found.leading(K), uniform_sets(every, found.leading(K), CONTROLS)),
        ("layer-matched", found.leading(k), layer_matched_sets(every, found.leading(k), CONTROLS)),
    ):
        joint(model, found, kind, heads, sets)


def joint(
    model: HeadModel, found: PatchMap, kind: str, heads: HeadSet, sets: list[HeadSet]
) -> None:
    result = joint_effect(
        model, Ioi(PAIRS, split="test"), heads, sets, found.direction, kind=kind, found_on=found
    )
    print(result.claim())
    print(result.table().round(3).to_string(index=False), flush=True)


def paths(model: HeadModel, found: PatchMap) -> None:
    """What the top heads say to the last ones among them."""
    late = 2 * len(found.layers) // 3
    top: list[Head | str] = [*found.leading(SENDERS)]
    receivers = [head for head in found.leading(K) if head[0] >= late][:RECEIVERS]
    start = time.perf_counter()
    table = path_patch(
        model, Ioi(PAIRS, split="test"), top, [*receivers, "logits"], direction="noising"
    )
    into = ", ".join(map(label, receivers))
    spent = time.perf_counter() - start
    print(
        f"\nPath patching (noising), {PAIRS} pairs of test, into {into} and the logits "
        f"({spent:.0f} s); paths with q <= 0.05, the largest first\n"
    )
    sure = table[table["q"] <= 0.05]
    order = sure["effect"].abs().sort_values(ascending=False).index
    print(sure.loc[order].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
