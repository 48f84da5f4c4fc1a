"""Needles under a profile: in kvpress, which loads the exported press, and simulated by headscope.

    python benchmarks/consumers/kvpress_needles.py        # 100 prompts of 1 024 tokens
    python benchmarks/consumers/kvpress_needles.py --samples 24 --lengths 512 --env DIR

The first run makes a virtual environment with kvpress 0.5.5 (about 1.5 GB; --env says where, by
default in headscope's cache) and keeps it; torch is installed first, so that the build that pip is
configured for is taken. The model is smollm2 in float32. Without --profile, half of its KV heads
stream with 4 sinks and a window of 64: those that the retrieval probe speaks for least, by 16 short
prompts; and once more, so that there is something to be wrong about, those that it speaks for most.

kvpress reads the context densely; from the question on, a streaming head sees the context's first
`sink` and last `window` tokens and all that comes after the context. This is simulated here as it
is, answer for answer, and beside it stands the profile's own rule, whose window moves on
(`SparseAttention(profile, part="decode")`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import headscope
from headscope.answering import ACCEPTED, rouge1_recall
from headscope.attention import Attention
from headscope.catalog import profile_formats
from headscope.engines import Attended
from headscope.evals.statistics import paired_proportions, wilson
from headscope.interventions.sparse_attention import SparseAttention
from headscope.model import HeadModel
from headscope.patterns import Full, Pattern, Streaming
from headscope.patterns.rules import Rule
from headscope.probes.retrieval import Retrieval
from headscope.prompts.base import Prompt
from headscope.prompts.needle import Needle
from headscope.smollm2 import cache_folder, smollm2_folder
from headscope.sparsity import SparseProfile
from headscope.stack import Attend

REQUIREMENTS = ("kvpress==0.5.5", "transformers<5.3")


@dataclass(frozen=True)
class _Pressed(Pattern):
    """What kvpress leaves of a context of `context` tokens to what comes after it."""

    context: int
    sink: int
    window: int

    def mask(self, query: Tensor, key: Tensor) -> Tensor:
        return (query < self.context) | (key < self.sink) | (key >= self.context - self.window)


def environment(folder: Path) -> Path:
    """The Python of an environment with kvpress, made if it is not there."""
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import kvpress"]
    if python.is_file() and subprocess.run(asked, check=False).returncode == 0:
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for wanted in ((f"torch=={torch.__version__.split('+')[0]}",), REQUIREMENTS):
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
    return python


def profiles(model: HeadModel) -> list[SparseProfile]:
    """Half of the KV heads streams: those that retrieve least, and those that retrieve most."""
    probe = Retrieval(prompts=Needle(samples=16, lengths=(256, 512)))
    head_map = headscope.scan(model, [probe])
    rule = Streaming(4, 64)
    least = SparseProfile.from_map(head_map, "retrieval", 0.5, rule)
    turned: dict[Rule, Rule] = {Full(): rule, rule: Full()}
    rows = [[turned[one] for one in least.of_layer(layer)] for layer in least.model.layers]
    return [least, SparseProfile.of(model, rows)]


def answer(model: HeadModel, prompt: Prompt, split: int, limit: int) -> str:
    """Greedy, with the context read in one pass, the question in another, and then by token."""
    ids, cache = list(prompt.token_ids), model.new_cache()
    model.forward(ids[:split], cache=cache, prompt_length=split, last=1)
    logits = model.forward(ids[split:], cache=cache, prompt_length=split, last=1)[0, -1]
    said: list[int] = []
    while True:
        said.append(int(logits.argmax()))
        if len(said) == limit or said[-1] in model.stop_ids:
            return model.tokenizer.decode(said, skip_special_tokens=True)
        logits = model.forward([said[-1]], cache=cache, prompt_length=split, last=1)[0, -1]


def simulated(model: HeadModel, profile: SparseProfile, split: int) -> AbstractContextManager[None]:
    """The press as a middleware."""

    def pressed(attention: Attention, attend: Attend) -> Attended:
        for rule in dict.fromkeys(profile.of_layer(attention.layer)):
            if isinstance(rule, Streaming):
                rules = profile.of_layer(attention.layer)
                heads = [head for head, other in enumerate(rules) if other == rule]
                pattern = _Pressed(split, rule.sink, rule.window)
                attention = attention.with_pattern(pattern, heads)
        return attend(attention)

    return model.entered(pressed)


def right(said: str, prompt: Prompt) -> bool:
    return rouge1_recall(said.split("\n")[0], prompt.answer) > ACCEPTED


def show(name: str, hits: np.ndarray) -> None:
    low, high = wilson(int(hits.sum()), len(hits))
    print(f"{name:<44}{hits.mean():>8.1%}  [{low:.1%}, {high:.1%}]", flush=True)


def kvpress_answers(
    python: Path, profile: SparseProfile, lines: Sequence[Mapping[str, object]]
) -> dict[str, list[str]]:
    """What kvpress says with the exported press, `pressed`, and without, `plain`."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        profile_formats()["kvpress"]().write(profile, work / "press")
        (work / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        worker = Path(__file__).with_name("kvpress_answers.py")
        files = [work / "press", work / "prompts.jsonl", work / "answers.jsonl"]
        command = [python, worker, smollm2_folder(), *files]
        subprocess.run(list(map(str, command)), check=True)
        answers = [json.loads(line) for line in files[2].read_text().splitlines()]
    return {name: [one[name] for one in answers] for name in ("plain", "pressed")}


def compare(model: HeadModel, profile: SparseProfile, python: Path, prompts: list[Prompt]) -> None:
    splits = [prompt.spans["question"][0] for prompt in prompts]
    limits = [len(prompt.answer_ids) + len(prompt.answer_ids) // 2 + 2 for prompt in prompts]
    lines = [
        {
            "context_ids": list(prompt.token_ids)[:split],
            "question_ids": list(prompt.token_ids)[split:],
            "max_new_tokens": limit,
        }
        for prompt, split, limit in zip(prompts, splits, limits, strict=True)
    ]
    theirs = kvpress_answers(python, profile, lines)
    scopes: dict[str, Callable[[int], AbstractContextManager[object]]] = {
        "plain": lambda split: nullcontext(),
        "pressed": lambda split: simulated(model, profile, split),
        "moving": lambda split: SparseAttention(profile, part="decode")(model),
    }
    mine: dict[str, list[str]] = {name: [] for name in scopes}
    for prompt, split, limit in zip(prompts, splits, limits, strict=True):
        for name, scope in scopes.items():
            with scope(split):
                mine[name].append(answer(model, prompt, split, limit))

    def hits(said: list[str]) -> np.ndarray:
        return np.array([right(one, prompt) for one, prompt in zip(said, prompts, strict=True)])

    show("kvpress without a press", hits(theirs["plain"]))
    show("headscope without a rule", hits(mine["plain"]))
    show("kvpress with the exported press", hits(theirs["pressed"]))
    show("headscope, what kvpress does", hits(mine["pressed"]))
    show("headscope, SparseAttention(part='decode')", hits(mine["moving"]))
    for name in ("plain", "pressed"):
        same = sum(a == b for a, b in zip(theirs[name], mine[name], strict=True))
        print(f"{name}: {same} of {len(prompts)} answers are the same text in both")
    for name in ("pressed", "moving"):
        change = hits(mine[name]).astype(float) - hits(theirs["pressed"])
        low, high = paired_proportions(change)
        verdict = "no difference is seen" if low <= 0 <= high else "they differ"
        print(f"{name} minus kvpress: {change.mean():+.1%} [{low:+.1%}, {high:+.1%}], {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Needles in kvpress and in headscope.")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024])
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--env", type=Path, default=cache_folder() / "kvpress-0.5.5")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    python = environment(asked.env)
    model = headscope.load("smollm2", dtype=torch.float32, device="cpu")
    chosen = profiles(model) if asked.profile is None else [SparseProfile.load(asked.profile)]
    family = Needle(samples=asked.samples, lengths=tuple(asked.lengths), split="test")
    prompts = family.prompts(model.tokenizer)
    for number, profile in enumerate(chosen):
        which = ", those that retrieve " + ("least", "most")[number] if len(chosen) > 1 else ""
        lengths = ", ".join(map(str, asked.lengths))
        print(f"\n{profile}{which}")
        print(f"{len(prompts)} needles of {lengths} tokens, answers right:", flush=True)
        compare(model, profile, python, prompts)


if __name__ == "__main__":
    main()
