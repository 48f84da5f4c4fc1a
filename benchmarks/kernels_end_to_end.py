"""A planned profile on the built-in model, on a GPU: the same answers, in which time, in how much.

    python benchmarks/kernels_end_to_end.py --tokens 8000

A profile is planned on needle prompts of the split "detect" at half of the KV bytes. Prompts are
needle questions of the split "test" with as many tokens as asked. Compared are the model without a
profile, the profile by the reference in torch, and the profile on Triton: logits of the last token,
greedy answers of some tokens with a `HeadCache`, seconds of a prompt and of a step (rounds in which
each runs once, in turn; medians, and medians of the rounds' ratios), and bytes of keys and values.
Putting a profile in force, which happens once and compares the model's weights, is not timed.
What rounding alone does to logits is shown by the model without a profile in float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from environment import describe
from verdicts import progress

import headscope
from headscope.evals.needle import Needle
from headscope.interventions.sparse_attention import SparseAttention
from headscope.kernels.choice import using
from headscope.model import HeadModel
from headscope.sparsity import HeadCache, SparseProfile
from headscope.sparsity.planner import plan
from headscope.sparsity.recall import measure_recall

WAYS = ("dense", "reference", "triton")


def in_scope(model: HeadModel, profile: SparseProfile, way: str) -> ExitStack:
    scope = ExitStack()
    if way != "dense":
        scope.enter_context(using("triton" if way == "triton" else "reference"))
        scope.enter_context(SparseAttention(profile)(model))
    return scope


def timed(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def rounds(
    calls: dict[str, Callable[[], object]], scope: Callable[[str], ExitStack], count: int
) -> dict[str, list[float]]:
    """Seconds of each, every round in another order; the first round is left out.

    Args:
        calls: by name, whose first word is a way.
        scope: in which a way runs.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for index in range(count + 1):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            with scope(name.split()[0]):
                found[name].append(timed(calls[name]))
    return {name: seconds[1:] for name, seconds in found.items()}


def show(what: str, found: dict[str, list[float]], per: int = 1) -> None:
    dense = found["dense"]
    for name, seconds in found.items():
        ratio = statistics.median(a / b for a, b in zip(dense, seconds, strict=True))
        median = 1000 * statistics.median(seconds) / per
        print(f"{what:<28}{name:<12}{median:>10.2f} ms{ratio:>8.2f} times as fast as dense")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--planned-at", type=int, default=4096)
    parser.add_argument("--detect", type=int, default=6)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", default="kv=0.5")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    describe()
    print(torch.cuda.get_device_name())
    model = headscope.load("smollm2", dtype=torch.bfloat16, device="cuda")
    recalls = measure_recall(
        model, lengths=(asked.planned_at,), samples=asked.detect,
        out=asked.out.with_suffix(".recalls"), progress=progress,
    )  # fmt: skip
    profile = plan(recalls, asked.budget).profile
    profile.save(asked.out)
    print(profile)
    torch.set_grad_enabled(False)
    task = Needle(lengths=(asked.tokens,), samples=asked.samples)
    questions = [task.item(index, model.tokenizer).prompt for index in range(asked.samples)]
    prompts = [torch.tensor([question.token_ids]) for question in questions]

    logits: dict[str, list[torch.Tensor]] = {way: [] for way in WAYS}
    answers: dict[str, list[list[int]]] = {way: [] for way in WAYS}
    held = {}
    for way in WAYS:
        with in_scope(model, profile, way):
            for question, ids in zip(questions, prompts, strict=True):
                logits[way].append(model(ids, last=1).float().cpu())
                cache = None if way == "dense" else HeadCache(profile)
                more = {} if cache is None else {"past_key_values": cache}
                new = model.generate(ids, max_new_tokens=len(question.answer_ids), **more)
                answers[way].append(new[0].tolist())
                if cache is not None:
                    held[way] = cache.kv_bytes()
    exact = headscope.load("smollm2", dtype=torch.float32, device="cuda")
    rounding = max(
        float((exact(ids, last=1).cpu() - one).abs().max())
        for ids, one in zip(prompts, logits["dense"], strict=True)
    )
    del exact
    apart = max(
        float((a - b).abs().max())
        for a, b in zip(logits["triton"], logits["reference"], strict=True)
    )
    same = sum(a == b for a, b in zip(answers["triton"], answers["reference"], strict=True))
    print(f"\n{len(prompts)} prompts of about {asked.tokens} tokens")
    print(f"logits, Triton against reference: {apart:.3f} at most")
    print(f"logits, bfloat16 against float32 without a profile: {rounding:.3f} at most")
    print(f"the same greedy answer from both: {same} of {len(prompts)}")
    for way in WAYS:
        right = sum(
            answer == list(question.answer_ids)
            for answer, question in zip(answers[way], questions, strict=True)
        )
        print(f"right answers, {way}: {right} of {len(prompts)}")
    whole = prompts[-1].shape[1] + len(questions[-1].answer_ids) - 1
    every = SparseProfile.of(profile.model, {}).kv_bytes(whole, model.dtype.itemsize)
    print(f"keys and values: {held} bytes held, {every} without a profile\n")

    ids = prompts[0]

    def scope(way: str) -> ExitStack:
        return in_scope(model, profile, way)

    def prompt() -> object:
        return model(ids, last=1)

    def generate(way: str, tokens: int) -> Callable[[], object]:
        def call() -> object:
            more = {} if way == "dense" else {"past_key_values": HeadCache(profile)}
            return model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, **more)

        return call

    show("prompt", rounds(dict.fromkeys(WAYS, prompt), scope, asked.rounds))
    both = rounds(
        {f"{way} {n}": generate(way, n) for n in (1, 1 + asked.steps) for way in WAYS},
        scope,
        asked.rounds,
    )
    steps = {
        way: [
            b - a for a, b in zip(both[f"{way} 1"], both[f"{way} {1 + asked.steps}"], strict=True)
        ]
        for way in WAYS
    }
    show("step, after the prompt", steps, asked.steps)


if __name__ == "__main__":
    main()
