"""DuoAttention and LServe: noise, a quantile, and all heads at or above it are full."""

import json
import random


def loaded(path, model, sparsity=None, seed=0):
    lines = (path / "full_attention_heads.tsv").read_text().splitlines()
    table = [[min(max(float(cell), 0.0), 1.0) for cell in line.split("\t")] for line in lines]
    config = json.loads((path / "config.json").read_text())
    share = config["sparsity"] if sparsity is None else sparsity
    noise = random.Random(seed)
    table = [[cell + noise.uniform(0, 1e-6) for cell in row] for row in table]
    threshold = quantile(sorted(cell for row in table for cell in row), share)
    if share >= 1:
        threshold = 2
    if share <= 0:
        threshold = -1
    group = model.n_heads // model.n_kv_heads
    streaming = ("streaming", config["sink_size"], config["recent_size"])
    return [
        [("full",) if cell >= threshold else streaming for cell in row for _ in range(group)]
        for row in table
    ]


def quantile(ascending, share):
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])
