"""What studies cost beside a plain forward and backward pass: time and memory.

    python benchmarks/training_cost.py --device cuda

Each study runs with its defaults but for fewer steps or prompts ("setting"); its time is divided by
that of as many plain passes as its bill says ("bill": forward passes, and plain forward with
backward passes less those), over one of its own prompts. A ratio of 1 means that it costs what it
says. Memory is the GPU allocator's peak beyond the weights, beside that of the plain forward and
backward pass over the same prompt. Every study ran once before; one run is timed.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from environment import describe
from gates_8k import cost, plain

import headscope
from headscope.model import HeadModel
from headscope.probes.act_heads import ActHeads
from headscope.probes.circuit_overlap import CircuitOverlap
from headscope.probes.discrete_sae import DiscreteSae
from headscope.probes.duo_gate import DuoGate
from headscope.probes.head_pursuit import HeadPursuit
from headscope.probes.importance import Importance
from headscope.probes.moa_span import MoaSpan
from headscope.probes.qk_spectrum import QkSpectrum
from headscope.probes.study import Work, _Study
from headscope.prompts.base import Prompt


def short(probe: _Study, samples: int) -> _Study:
    return replace(probe, prompts=replace(probe.prompts, samples=samples))


STUDIES: dict[str, Callable[[], _Study]] = {
    "8 steps": lambda: DuoGate(steps=8),
    "6 prompts": lambda: short(Importance(), 6),
    "6 prompts ": lambda: short(MoaSpan(), 6),
    "all prompts": HeadPursuit,
    "all prompts, 1 repeat": lambda: DiscreteSae(repeats=1),
    "12 pairs": lambda: short(CircuitOverlap(), 12),
    "8 questions, 2 heads": lambda: short(ActHeads(most=2), 8),
    "weights alone": QkSpectrum,
}


def forward(model: HeadModel, prompt: Prompt) -> None:
    with torch.no_grad():
        model.forward(prompt.token_ids, last=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = headscope.load("smollm2", device=options.device, dtype="float32")
    describe()
    print("| study | setting | seconds | bill | seconds / bill | GiB | GiB, plain pass |")
    print("|---|---|---|---|---|---|---|")
    for setting, make in STUDIES.items():
        probe = make()
        prompts = probe.prompts.prompts(model.tokenizer)
        bill = probe.bill(model, prompts)
        longest = max(prompts, key=len)
        answered = replace(longest, answer_ids=longest.answer_ids or (0,))
        one, _ = cost(lambda p=longest: forward(model, p), 5)
        both, plainly = cost(lambda p=answered: plain(model, p), 5)
        share = bill.tokens / len(longest)
        expected = share * (bill.forward * one + bill.backward * (both - one))
        with torch.no_grad():
            seconds, held = cost(lambda p=probe, x=prompts: p.study(model, x, Work()), 1)
        ratio = f"{seconds / expected:.1f}" if bill.forward else "–"
        print(
            f"| `{probe.name}` | {setting.strip()} | {seconds:.1f} | {bill.forward} + "
            f"{bill.backward} over {bill.tokens} | {ratio} | {held:.2f} | {plainly:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
