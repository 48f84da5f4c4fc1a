"""previous_token, duplicate_token and induction, against TransformerLens' `detect_head`.

TransformerLens at its best: one cache of patterns shared by the three. Both measure the same ids,
from text that encodes to them again. Each side runs in a process of its own, for its memory.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from environment import describe, memory_now, memory_peak, reset_peak

LENGTHS = (512, 1024, 2048)
ROUNDS = 7


def passage(tokenizer: Any, length: int) -> str:
    """Filler text that encodes to exactly `length` tokens, and to the same ones again."""
    from headscope.prompts import filler

    words, n = filler.passage("test", 0, length), length
    while True:
        text = filler.join(words[:n]).replace("\n\n", " ")
        ids = tokenizer(text)["input_ids"]
        if len(ids) <= length and tokenizer(tokenizer.decode(ids))["input_ids"] == ids:
            return text
        n -= 1


def timed(work: Callable[[], Any], *others: Callable[[], Any]) -> tuple[list[float], float, Any]:
    """(median seconds of each, peak bytes of a warm-up of `work` beyond the weights, its result).

    The rounds of several alternate, so that a slow moment of the machine meets all of them.
    """
    before = memory_now()
    reset_peak()
    result = work()
    peak = memory_peak() - before
    every = (work, *others)
    for other in others:
        other()
    seconds: list[list[float]] = [[] for _ in every]
    for _ in range(ROUNDS):
        for each, spent in zip(every, seconds, strict=True):
            start = time.perf_counter()
            each()
            spent.append(time.perf_counter() - start)
    return [median(spent) for spent in seconds], peak, result


def headscope_side(text: str) -> dict[str, Any]:
    import headscope
    from headscope.probes.duplicate_token import DuplicateToken
    from headscope.probes.induction import Induction
    from headscope.probes.previous_token import PreviousToken
    from headscope.prompts import Jsonl

    model = headscope.load("smollm2")
    text = str(model.tokenizer.bos_token) + text  # a bridge puts it in front by itself
    probes = [kind(every_row=True) for kind in (PreviousToken, DuplicateToken, Induction)]
    ids = model.tokens(text)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "text.jsonl"
        path.write_text(json.dumps({"text": text}), encoding="utf-8")
        family = Jsonl(path=str(path))
        (seconds, plain), peak, found = timed(
            lambda: headscope.scan(model, probes, prompts=family),
            lambda: model.hf(ids, logits_to_keep=1),
        )
    scores = {name: found[name].values[0].tolist() for name in found.scores}
    return {"seconds": seconds, "peak": peak, "plain": plain, "scores": scores, "n": ids.shape[1]}


def lens_side(text: str) -> dict[str, Any]:
    from transformer_lens.head_detector import detect_head

    import headscope

    bridge = headscope.load("smollm2", backend="lens").backend.bridge
    names = ("previous_token", "duplicate_token", "induction")

    def work() -> dict[str, Any]:
        tokens = bridge.to_tokens(text)
        _, cache = bridge.run_with_cache(
            tokens, remove_batch_dim=True, names_filter=lambda name: name.endswith("hook_pattern")
        )
        return {n: detect_head(bridge, text, f"{n}_head", cache=cache) for n in names}

    with torch.no_grad():
        (seconds,), peak, found = timed(work)
    n = bridge.to_tokens(text).shape[1]
    scores = {name: value.tolist() for name, value in found.items()}
    return {"seconds": seconds, "peak": peak, "scores": scores, "n": n}


def side(name: str, text: str) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(text, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, __file__, name, file.name], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    sides = {"headscope": headscope_side, "lens": lens_side}
    if len(sys.argv) > 1:
        text = json.loads(Path(sys.argv[2]).read_text())
        print(json.dumps(sides[sys.argv[1]](text)))
        return
    describe()
    from transformers import AutoTokenizer

    from headscope.smollm2 import smollm2_folder

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    print(
        f"{'tokens':>7}{'headscope s':>13}{'lens s':>9}{'faster':>8}{'over plain':>12}"
        f"{'headscope MiB':>15}{'lens MiB':>10}{'less':>7}{'largest difference':>20}"
    )
    for length in LENGTHS:
        text = passage(tokenizer, length - 1)
        ours, theirs = side("headscope", text), side("lens", text)
        assert ours["n"] == theirs["n"]
        error = max(
            np.abs(np.subtract(ours["scores"][name], theirs["scores"][name])).max()
            for name in theirs["scores"]
        )
        print(
            f"{ours['n']:>7}{ours['seconds']:>13.2f}{theirs['seconds']:>9.2f}"
            f"{theirs['seconds'] / ours['seconds']:>7.1f}×{ours['seconds'] / ours['plain']:>11.2f}×"
            f"{ours['peak'] / 2**20:>15.0f}{theirs['peak'] / 2**20:>10.0f}"
            f"{theirs['peak'] / ours['peak']:>6.1f}×{error:>20.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
