"""What each intervention costs: a prefill and a decode step under it over plain ones.

    python benchmarks/interventions_cost.py [--device cuda]

Prompts of 1 000 tokens on the built-in model: a needle between sentences, or ten documents where
a method works on documents. Plain and changed passes take turns; medians and their ratio. A method
that rewrites the prompt is charged for that and for reading what it wrote; one that is trained is
given what a training would give, from a seed: its values do not change its cost. The prefill gives
one row of logits, as in `generate`; a step is one token behind the prompt.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from environment import describe
from intervention_recipes import recipe

import headscope
from headscope.catalog import interventions
from headscope.interventions.base import Intervention
from headscope.model import HeadModel
from headscope.prompts.base import Prompt
from headscope.prompts.documents import Documents
from headscope.prompts.needle import Needle

ROUNDS, STEPS = 3, 6


def timed(model: HeadModel, work: Callable[[], object]) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def passes(model: HeadModel, method: Intervention | None, prompt: Prompt) -> tuple[float, float]:
    """Seconds of a prefill, and of a step behind it (median of several)."""
    rewriting = 0.0
    if method is not None and method.site == "prompt":
        kept: list[Prompt] = []
        rewriting = timed(model, lambda: kept.append(method.prepared(model, prompt)[1]))
        method, prompt = None, kept[0]
    elif method is not None:
        method, prompt = method.prepared(model, prompt)
    ids, cache, n = list(prompt.token_ids), model.new_cache(), len(prompt)
    with nullcontext() if method is None else method(model):
        first = timed(model, lambda: model.forward(ids, cache=cache, prompt_length=n, last=1))
        steps = [
            timed(model, lambda: model.forward([9], cache=cache, prompt_length=n))
            for _ in range(STEPS)
        ]
    return rewriting + first, statistics.median(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="names joined by commas; all by default")
    options = parser.parse_args()
    describe()
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    print(f"{model}\n", flush=True)
    needle = Needle(samples=1, lengths=(1000,)).prompt(0, model.tokenizer)
    documents = Documents(documents=10, document_tokens=92).prompt(0, model.tokenizer)
    print(f"needle: {len(needle)} tokens, documents: {len(documents)} tokens\n")
    print("| intervention | prefill | × plain | decode step | × plain |\n|---|---|---|---|---|")
    names = [n for n in options.only.split(",") if n] or list(interventions())
    with torch.no_grad():
        passes(model, None, needle)
        for name in names:
            method, wants = recipe(name, model)
            prompt = documents if wants == "documents" else needle
            plain, changed = [], []
            passes(model, method, prompt)  # what is traced once, or compiled, is not counted
            for _ in range(ROUNDS):
                plain.append(passes(model, None, prompt))
                changed.append(passes(model, method, prompt))
            before = [statistics.median(x) for x in zip(*plain, strict=True)]
            after = [statistics.median(x) for x in zip(*changed, strict=True)]
            cells = [
                f"{1000 * now:.1f} ms | {now / was:.2f}"
                for was, now in zip(before, after, strict=True)
            ]
            print(f"| `{name}` | {cells[0]} | {cells[1]} |", flush=True)
            print(name, file=sys.stderr)


if __name__ == "__main__":
    main()
