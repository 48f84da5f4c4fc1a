"""Time and memory of training gates at 8 000 tokens, and that nothing square is kept.

    python benchmarks/gates_8k.py --device cuda

A step is compared with a plain forward and backward pass over one such prompt (the nats of the same
answer, differentiated by the first layer's z, weights still). Peak memory is what the allocator of
the GPU held at most beyond the weights. Every tensor that autograd keeps and that is no weight is
looked at: "largest" is the one of most elements, beside tokens squared.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from environment import describe
from torch import Tensor

import headscope
from headscope.attention import Attention
from headscope.engines import Attended
from headscope.model import HeadModel
from headscope.patterns.streaming import Streaming
from headscope.probes.gate_training import GateTraining, Recipe
from headscope.probes.gradients import frozen
from headscope.prompts.base import Prompt
from headscope.prompts.passkeys import Passkeys
from headscope.stack import Attend


def plain(model: HeadModel, prompt: Prompt) -> None:
    """One forward and one backward pass."""
    leaves: list[Tensor] = []

    def around(attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        if attention.layer != model.layers[0]:
            return attended
        leaves.append(attended.z.detach().requires_grad_(True))
        return attended.with_z(leaves[0])

    n = len(prompt.answer_ids)
    with frozen(model), model.entered(around):
        logits = model.forward([*prompt.token_ids, *prompt.answer_ids[:-1]], last=n)[0]
        want = torch.tensor(prompt.answer_ids, device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits.float(), want)
        torch.autograd.grad(loss, leaves)


def cost(work: Callable[[], None], times: int) -> tuple[float, float]:
    """(median seconds, GiB at most beyond what was there)."""
    cuda = torch.cuda.is_available()
    work()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    held = (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else float("nan")
    return statistics.median(taken), held


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--length", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    describe()
    print("| dtype | tokens | what | seconds | GiB at most | largest kept / tokens squared |")
    print("|---|---|---|---|---|---|")
    for dtype in ("bfloat16", "float32"):
        model = headscope.load("smollm2", device=options.device, dtype=dtype)
        family = Passkeys(samples=4, lengths=(options.length,), passkeys=9, every=True)
        prompts = family.prompts(model.tokenizer)
        tokens = len(prompts[0]) + len(prompts[0].answer_ids) - 1
        weights = {p.untyped_storage().data_ptr() for p in model.hf.parameters()}
        sizes: list[int] = []

        def see(kept: Tensor, sizes: list[int] = sizes, weights: set[int] = weights) -> Tensor:
            if kept.untyped_storage().data_ptr() not in weights:
                sizes.append(kept.numel())
            return kept

        seconds, held = cost(lambda: plain(model, prompts[0]), 5)  # noqa: B023
        print(f"| {dtype} | {tokens} | plain pass | {seconds:.3f} | {held:.2f} | |")
        recipe = Recipe(Streaming(128, 256), 2000, 0.02, 0.05, 0)
        training = GateTraining(model, recipe, prompts)
        with torch.autograd.graph.saved_tensors_hooks(see, lambda kept: kept):
            training.step()
        seconds, held = cost(training.step, options.steps)
        share = max(sizes) / tokens**2
        print(
            f"| {dtype} | {tokens} | a step of gates | {seconds:.3f} | {held:.2f} | {share:.2f} |"
        )
        print(f"2 000 steps: {2000 * seconds / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
