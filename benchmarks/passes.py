"""Time and memory of a scan by pass and by probe, at any length.

    python benchmarks/passes.py smollm2                      # every family at its own lengths
    python benchmarks/passes.py smollm2 8000                 # every family at one length
    python benchmarks/passes.py llama8b 32768 131072         # 4 random layers of Llama-3-8B's shape
    python benchmarks/passes.py llama8b 131072 sink_bos      # some probes alone

One prompt of each family; the expected answer stands for the model's own, so that a random model is
measured too. "rows" are probes that read a few rows, "all rows" those that read every row, with the
sweep that they share counted by itself; "own" are probes with passes of their own. Memory of a
probe is what its work on one layer adds at the peak, of "own" and the plain pass what they add to
the weights: on a GPU as PyTorch counts it, on a CPU as the kernel does.
"""

import dataclasses
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from environment import describe, memory_now, memory_peak, reset_peak
from stretching import stretched

import headscope
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.planning import Group, choose, grouped
from headscope.probes.base import Probe, Reading

GIB = 2**30


def llama8b() -> HeadModel:
    """Four layers of Llama-3-8B's shape with random weights and the built-in model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from headscope.smollm2 import smollm2_folder

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4096, intermediate_size=14336, num_hidden_layers=4,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=2**18,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        hf = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    return headscope.load(hf, tokenizer)


@dataclasses.dataclass
class Clock:
    """Seconds by name, and GiB at the peak of the work beyond what was there before it."""

    cuda: bool
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    memory: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        before = self._begin()
        start = time.perf_counter()
        result = work()
        if self.cuda:
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if self.cuda else memory_peak()
        self.memory[name] = max(self.memory[name], (peak - before) / GIB)
        return result

    def _begin(self) -> int:
        if not self.cuda:
            reset_peak()
            return memory_now()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()


def report(model: HeadModel, group: Group) -> None:
    """One group of probes on the longest of its prompts."""
    clock = Clock(model.device.type == "cuda")
    prompt = max(group.prompts, key=len)
    ids = torch.tensor(prompt.token_ids, device=model.device)
    answer = torch.tensor(prompt.answer_ids, device=model.device)
    attention: list[Attended] = []

    def plain() -> None:
        model.forward(ids[None], last=1)

    plain()
    clock("plain", plain)
    with model.observed(lambda a: attention.append(a) if not attention else None):
        model.forward(ids[:8][None], last=1)
    first = attention.pop().attention
    one = 2 * first.k[0, :, 0].numel() + first.q[0, :, 0].numel()
    qkv = one * first.q.element_size() * len(ids) / GIB
    head = f"{group.family.name}, {len(ids)} tokens: plain pass {clock.seconds['plain']:.2f} s"
    print(f"\n{head}, {clock.memory['plain']:.2f} GiB; q, k, v of one layer {qkv:.2f} GiB")
    if group.altering is not None:
        probe = group.altering
        clock(probe.name, lambda: probe.read(model, prompt))
        table(clock, {"own": [probe]})
        return

    def observed(
        probes: Sequence[Probe], reading: Reading, tokens: torch.Tensor, **to: Any
    ) -> None:
        def observe(attended: Attended) -> None:
            if any(probe.cost in ("all rows", "columns") for probe in probes):
                clock("the sweep they share", lambda: reading.sweep(attended))
            for probe in probes:
                clock(probe.name, lambda probe=probe: probe.measure(attended, reading))

        with model.observed(observe):
            model.forward(tokens[None], last=1, **to)

    nothing = ids[:0]
    kinds = {
        "rows": [p for p in group.probes if p.rows != "answer" and p.cost == "rows"],
        "all rows": [p for p in group.probes if p.rows != "answer" and p.cost != "rows"],
    }
    for probes in kinds.values():
        if probes:
            reading = Reading(prompt, model, ids, nothing, nothing)
            observed(probes, reading, ids, prompt_length=len(ids))
    answering = [probe for probe in group.probes if probe.rows == "answer"]
    if answering and len(answer):
        kinds["answer"] = answering
        cache = model.new_cache()
        model.forward(ids[None, :-1], cache=cache, last=1)
        everything = torch.cat((ids, answer))
        made = torch.arange(len(answer), device=ids.device)
        reading = Reading(prompt, model, everything, answer, made)
        tail = everything[len(ids) - 1 : -1]
        observed(answering, reading, tail, cache=cache, prompt_length=len(ids))
    table(clock, kinds)


def table(clock: Clock, kinds: dict[str, list[Probe]]) -> None:
    """Each kind's share of the plain pass, then each probe's."""
    plain = clock.seconds["plain"]
    for kind, probes in kinds.items():
        if not probes:
            continue
        names = [probe.name for probe in probes]
        if kind == "all rows":
            names = ["the sweep they share", *names]
        spent = sum(clock.seconds[name] for name in names)
        ratio = f"{spent / plain:.2f}" if kind in ("own", "answer") else f"{1 + spent / plain:.2f}"
        what = "of a plain pass" if kind in ("own", "answer") else "of a plain pass, with it"
        print(f"  {kind}: {ratio} {what}")
        for name in names:
            seconds, memory = clock.seconds[name], max(clock.memory[name], 0)
            print(f"    {name:24}{seconds:9.3f} s{100 * seconds / plain:8.1f} %{memory:9.3f} GiB")
    sys.stdout.flush()


@torch.no_grad()
def main() -> None:
    describe()
    spec, *rest = sys.argv[1:]
    lengths = [int(word) for word in rest if word.isdigit()]
    names: Any = [word for word in rest if not word.isdigit()] or "all"
    model = llama8b() if spec == "llama8b" else headscope.load(spec)
    print(model)
    for length in lengths or [None]:
        probes = []
        for probe in choose(names, None, None, 12 if length is None else 1, None):
            if length is not None:
                family = stretched(probe.prompts, length)
                probe = dataclasses.replace(probe, prompts=family)
            probes.append(probe)
        groups, left_out = grouped(probes, model, lenient=True)
        for name, reason in left_out.items():
            print(f"{name} is left out: {reason}")
        for group in sorted(groups, key=lambda group: group.altering is not None):
            try:
                report(model, group)
            except (HeadscopeError, torch.OutOfMemoryError) as error:
                print(f"  failed: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
