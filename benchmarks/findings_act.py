"""Whether calibrating attention sinks (ACT) helps a small model on tasks that did not choose heads.

    python benchmarks/findings_act.py --device cuda

The claims, and what decides each, were written before anything was measured. Intervals are 95 %,
paired bootstrap over questions. Evals with one-token choices: `single_fact` and `colored_objects`
(`ioi` and `greater_than` were planned too, and every head; 252 heads on four evals took longer than
there was time for). The 24 heads with most attention on hidden sinks (probe `hidden_sinks`, ACT's
own rule for what a sink is; its own prompts), from layer 2 on, are calibrated alone (beta 0.4,
threshold 0.1, the first token receiving, as in the released code) on questions of the split "tune";
the head sets are tested jointly on other questions, of the split "test".

1. Heads that raise accuracy when calibrated alone (the paper's rule), used together, raise the
   margin of the right answers: the interval of the change lies above 0.
2. The same for accuracy.
3. The same margin for heads kept at a false discovery rate of 5 % (where there are any).
4. All heads of layers from 2 on at once raise the margin.
5. As 4, the first token not receiving.
"""

import argparse
import sys

import numpy as np
from verdicts import Finding, above, print_findings

import headscope
from headscope.evals.act_heads import select_act_heads
from headscope.evals.evaluation import Evaluation
from headscope.evals.gates import mean_interval
from headscope.interventions.act import ACT

TASKS = ("single_fact", "colored_objects")
ACT_PAPER = "ACT, arXiv 2406.15765"


def progress(task: str, done: int, total: int) -> None:
    print(f"\r{task}: {done}/{total}", end="\n" if done == total else "", file=sys.stderr)


def finding(result: Evaluation, condition: int, what: str, accuracy: bool = False) -> Finding:
    changes = []
    for task in result.tasks:
        if accuracy:
            changes.append(task.exact(condition).astype(float) - task.exact(0))
        else:
            changes.append(task.values(condition) - task.values(0))
    change = np.concatenate(changes)
    low, high = mean_interval(change)
    unit = "accuracy" if accuracy else "margin of the right answers, in nats"
    each = ", ".join(
        f"{task.task} {values.mean():+.3f}"
        for task, values in zip(result.tasks, changes, strict=True)
    )
    claim = f"{what}: change of the {unit}, above 0 ({each})"
    return Finding(claim, ACT_PAPER, float(change.mean()), low, high, above(low, high, 0), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=60, help="test questions of each eval")
    parser.add_argument("--tune", type=int, default=12, help="tuning questions of each eval")
    parser.add_argument("--heads", type=int, default=24, help="how many heads are tried")
    options = parser.parse_args()
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    head_map = headscope.scan(model, ["hidden_sinks"], samples=4, progress=progress)
    top = head_map.top("hidden_sinks", len(model.heads))
    ranked = zip(top["layer"].tolist(), top["head"].tolist(), strict=True)
    heads = [head for head in ranked if head[0] >= ACT().skip][: options.heads]
    chosen = select_act_heads(model, TASKS, heads=heads, samples=options.tune, progress=progress)
    print(chosen.claim(), file=sys.stderr)
    print(chosen.table().head(12).to_string(), file=sys.stderr)
    improving, selected = chosen.improving(), chosen.selected()
    changes = {"improving": ACT(heads=improving), "selected": ACT(heads=selected)}
    changes |= {"all": ACT(), "all, first spared": ACT(first_receives=False)}
    result = headscope.evaluate(
        model, TASKS, samples=options.samples, changes=changes, progress=progress
    )
    rule = f"the {len(improving)} heads that raise accuracy alone"
    found = [finding(result, 1, rule), finding(result, 1, rule, accuracy=True)]
    if selected:
        found.append(finding(result, 2, f"the {len(selected)} heads kept at 5 % false discoveries"))
    else:
        print("No head is kept at a false discovery rate of 5 %.", file=sys.stderr)
    found.append(finding(result, 3, "all heads from layer 2 on"))
    found.append(finding(result, 4, "the same, the first token not receiving"))
    print_findings(found)


if __name__ == "__main__":
    main()
