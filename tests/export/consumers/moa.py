"""MoA: sizes of caches, sink inside, for a text of N tokens."""

import json
import math

SINK, BLOCK, LEAST, NEW = 64, 64, 128, 1024


def loaded(path, model):
    plan = json.loads(path.read_text())
    return [
        [said(alpha, beta) for alpha, beta in zip(*row, strict=True)]
        for row in zip(plan["alphas"], plan["betas"], strict=True)
    ]


def said(alpha, beta):
    if (alpha, beta) == (0, 1):
        return ("full",)
    return ("streaming", SINK, alpha - SINK, *([beta] if beta else []))


def bands(path, tokens):
    """[layer][head]: blocks of keys that a row sees behind the sink's, its own block among them."""
    plan = json.loads(path.read_text())
    total = tokens + NEW
    rows = []
    for row in zip(plan["alphas"], plan["betas"], strict=True):
        sizes = [min(int(alpha + total * beta), total) for alpha, beta in zip(*row, strict=True)]
        sizes = [math.ceil(max(size, LEAST) / BLOCK) * BLOCK for size in sizes]
        rows.append([(size - min(size, SINK)) // BLOCK for size in sizes])
    return rows
