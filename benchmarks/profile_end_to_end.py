"""From a head map to a file that serves: plan at half the KV bytes, export, read back, generate.

    headscope scan smollm2 --probes retrieval --out runs/mine
    python benchmarks/profile_end_to_end.py runs/mine --out runs/end_to_end.json

What decides was written before anything was measured. Losses are measured on needle prompts of the
split "detect" and the profile is planned on them; accuracy is that of greedy answers to needle
questions of the split "test", generated with a `HeadCache` of the profile under
`SparseAttention(profile)`, an answer being right where all of its tokens are. Random profiles give
the plan's own rules to KV heads drawn by chance, so that their KV bytes are the same. Intervals are
95 %, of paired proportions over questions.

1. Accuracy with the planned profile, as a share of the dense model's: at least 0.9.
2. It lies above that of each of the random profiles.
3. The bytes that the HeadCache holds after the answer are those that the profile predicts.
4. Every format that can express the profile reads back to the same logits; the others refuse.
   What a coarser format can express is tried on a second profile: the KV heads that the plan cut
   most, streaming with one rule.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from environment import describe
from verdicts import progress

from headscope import storage
from headscope.catalog import profile_formats
from headscope.errors import HeadscopeError
from headscope.evals.base import Item
from headscope.evals.needle import Needle
from headscope.evals.statistics import paired_proportions
from headscope.headmap import HeadMap
from headscope.interventions.sparse_attention import SparseAttention
from headscope.model import HeadModel
from headscope.patterns import Full, Streaming
from headscope.places import reopened
from headscope.sparsity import HeadCache, SparseProfile
from headscope.sparsity.planner import plan
from headscope.sparsity.recall import measure_recall

SINK, WINDOW = 64, 64  # tokens, of the profile that coarser formats can express


def shuffled(profile: SparseProfile, seed: int) -> SparseProfile:
    """The same rules on KV heads drawn by chance."""
    group = profile.model.group
    units = [rule for layer in profile.model.layers for rule in profile.of_layer(layer)[::group]]
    drawn = [units[at] for at in np.random.default_rng(seed).permutation(len(units))]
    rows = np.array(drawn, dtype=object).reshape(len(profile.model.layers), -1).repeat(group, 1)
    return SparseProfile.of(profile.model, rows.tolist())


def coarse(profile: SparseProfile) -> SparseProfile:
    """Full and one streaming rule: the KV heads that the profile cuts to the window or less."""
    rows = [
        [
            Streaming(SINK, WINDOW)
            if isinstance(rule, Streaming) and rule.window <= WINDOW
            else Full()
            for rule in profile.of_layer(layer)
        ]
        for layer in profile.model.layers
    ]
    return SparseProfile.of(profile.model, rows)


def answered(
    model: HeadModel, profile: SparseProfile | None, question: Item
) -> tuple[bool, int, int]:
    """Whether the greedy answer is right; bytes held afterwards, and bytes predicted."""
    prompt = question.prompt
    ids, count = torch.tensor([prompt.token_ids]), len(prompt.answer_ids)
    if profile is None:
        new = model.generate(ids, max_new_tokens=count)
        return new[0].tolist() == list(prompt.answer_ids), 0, 0
    cache = HeadCache(profile)
    with SparseAttention(profile)(model):
        new = model.generate(ids, max_new_tokens=count, past_key_values=cache)
    read = len(prompt.token_ids) + new.shape[1] - 1  # the last token is said and not read
    predicted = profile.kv_bytes(read, model.dtype.itemsize)
    return new[0].tolist() == list(prompt.answer_ids), cache.kv_bytes(), predicted


def files(model: HeadModel, profile: SparseProfile, folder: Path, ids: torch.Tensor) -> None:
    """Write the profile in every format, read it back, and compare logits."""
    with SparseAttention(profile)(model):
        want = model(ids, last=1)
    for name, kind in profile_formats().items():
        length = {"length": 1024} if name in ("flex_attention", "flashinfer") else {}
        form = kind(**length)
        try:
            form.write(profile, folder / name)
        except HeadscopeError as refusal:
            print(f"  {name}: refused. {refusal}")
            continue
        again = form.read(folder / name, profile)
        with SparseAttention(again)(model):
            same = torch.equal(model(ids, last=1), want)
        print(f"  {name}: {'the same logits' if same else 'OTHER LOGITS'}")


def share_of(right: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Right answers as a share of the dense model's, and its interval, paired by question."""
    floor, change = max(base.mean(), 1 / len(base)), right - base
    low, high = paired_proportions(change)
    return float(1 + change.mean() / floor), 1 + low / floor, 1 + high / floor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--budget", default="kv=0.5")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--detect", type=int, default=16)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--randoms", type=int, default=20)
    parser.add_argument("--loss", default=None)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    describe()
    head_map = HeadMap.load(asked.run)
    model = reopened(asked.run, head_map, None)
    recalls = measure_recall(
        model, lengths=(asked.length,), samples=asked.detect, out=asked.out.with_suffix(".recalls"),
        progress=progress,
    )  # fmt: skip
    made = plan(recalls, asked.budget, loss=asked.loss)
    print(made.table().to_string(index=False))
    print(made, "\n")
    profiles = {"dense": None, "planned": made.profile}
    profiles |= {f"random {seed}": shuffled(made.profile, seed) for seed in range(asked.randoms)}
    task = Needle(lengths=(asked.length,), samples=asked.samples)
    questions = [task.item(index, model.tokenizer) for index in range(asked.samples)]
    folder = asked.out.with_suffix(".files")
    longest = torch.tensor([max((q.prompt.token_ids for q in questions), key=len)])
    for what, profile in (("planned", made.profile), ("coarse", coarse(made.profile))):
        print(f"Formats, {what} profile ({profile}):")
        files(model, profile, folder / what, longest)
    done = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for name, profile in profiles.items():
        for index, question in enumerate(questions):
            if f"{name}/{index}" not in done:
                done[f"{name}/{index}"] = answered(model, profile, question)
                storage.write(asked.out, json.dumps(done).encode())
        progress(name, len(questions), len(questions))
    right = {n: np.array([done[f"{n}/{i}"][0] for i in range(len(questions))]) for n in profiles}
    print(f"\nNeedles of about {asked.length} tokens, {len(questions)} questions:")
    for name, values in right.items():
        held, predicted = done[f"{name}/0"][1:]
        share, low, high = share_of(values.astype(float), right["dense"].astype(float))
        print(
            f"  {name}: {values.mean():.3f}, {share:.2f} [{low:.2f}, {high:.2f}] of dense"
            + (f"; {held:,} bytes held, {predicted:,} predicted" if profiles[name] else "")
        )
    planned = right["planned"].mean()
    beaten = sum(right[f"random {seed}"].mean() < planned for seed in range(asked.randoms))
    print(f"Above {beaten} of {asked.randoms} random profiles of the same bytes.")
    every = [done[key][1:] for key in done if not key.startswith("dense/")]
    print(f"Bytes held are bytes predicted: {sum(a == b for a, b in every)} of {len(every)}.")
    n = max(len(q.prompt.token_ids) for q in questions)
    whole = SparseProfile.of(model, {}).kv_bytes(n, model.dtype.itemsize)
    saved = 1 - made.profile.kv_bytes(n, model.dtype.itemsize) / whole
    print(f"KV bytes saved at {n} tokens: {saved:.1%} of {whole:,}.")


if __name__ == "__main__":
    main()
