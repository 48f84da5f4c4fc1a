"""Many control sets where the answer is made: one prefill for all of them, and one for each.

    python benchmarks/shared_prefill.py

99 uniform control sets of 5 heads, 24 needle prompts of 1 000 tokens, the answer's rows ablated.
With the prefill shared every prompt is measured. Without it every condition reads the prompt again,
one after the other, as a pass over prompt and answer; that is measured on the first prompts and
counted for all, since it would take an hour.
"""

import statistics
import time

import torch
from environment import describe

import headscope
from headscope.evals.controls import uniform_sets
from headscope.evals.masking import masked_scores, masks_of
from headscope.evals.needle import Needle
from headscope.evals.scoring import scored
from headscope.heads import parse_heads

TESTED = parse_heads(["L18H6", "L18H7", "L17H3", "L19H3", "L14H8"])
SETS, PROMPTS, LENGTH, ONE_BY_ONE = 99, 24, 1000, 1


@torch.no_grad()
def main() -> None:
    describe()
    model = headscope.load("smollm2")

    sets = [(), *uniform_sets(model.heads, TESTED, SETS)]
    masks = masks_of(model, sets, "zero", "answer", 0)
    items = Needle(samples=PROMPTS, lengths=(LENGTH,)).items(model.tokenizer)
    scored(model, items[0])  # warm
    alone, apart = [], []
    for item in items[:ONE_BY_ONE]:
        start = time.perf_counter()
        apart += [scored(model, item, [mask])[0] for mask in masks]
        alone.append(time.perf_counter() - start)
    shared, together = [], []
    for item in items:
        start = time.perf_counter()
        together += masked_scores(model, item, masks)
        shared.append(time.perf_counter() - start)
    worst = max(abs(a.logp - b.logp) for a, b in zip(apart, together, strict=False))
    total, each = sum(shared), statistics.median(shared)
    print(
        f"{SETS} control sets and the model as it is, {PROMPTS} prompts of {LENGTH} tokens, "
        "part 'answer'"
    )
    print(f"one prefill for all:  {total:7.1f} s, {each:.2f} s a prompt (median)")
    whole = statistics.median(alone) * PROMPTS
    print(f"one for each:         {whole:7.1f} s, {statistics.median(alone):.2f} s a prompt "
          f"(median of {ONE_BY_ONE})")  # fmt: skip
    print(f"ratio {statistics.median(alone) / each:.1f}; largest difference {worst:.1e} nats")


if __name__ == "__main__":
    main()
