import numpy as np
import oracle
import torch
from torch import Tensor

from definitions.rotation import rotates
from headscope.attention import Attention
from headscope.model import HeadModel
from headscope.prompts import Prompt

TURNS = 3
PARAMETERS = {"turns": TURNS}
FITS = rotates


def define(model: HeadModel, prompt: Prompt) -> dict[str, Tensor]:
    first, *rest = prompt.token_ids
    starts = [len(rest) - turn * len(rest) // TURNS for turn in range(TURNS)]
    said = torch.tensor([[first, *rest[start:], *rest[:start]] for start in starts])
    layers: list[Attention] = []
    # A rotation whose frequencies are all zero turns nothing.
    frequencies = [b for name, b in model.hf.named_buffers() if name.endswith("inv_freq")]
    kept = [b.clone() for b in frequencies]
    for buffer in frequencies:
        buffer.zero_()
    try:
        with model.observed(lambda attended: layers.append(attended.attention)):
            model(said)
    finally:
        for buffer, old in zip(frequencies, kept, strict=True):
            buffer.copy_(old)
    found = [_layer(attention) for attention in layers]
    return {name: torch.tensor([layer[name] for layer in found]) for name in found[0]}


def _layer(attention: Attention) -> dict[str, list]:
    dense = oracle.dense(attention)
    n = attention.n_queries
    scores, rises, profiles = [], [], []
    for head in range(attention.n_heads):
        trends, slopes = [], []
        received, fallen = [0.0] * 16, [0] * 16
        for i in range(n // 2, n):
            logits, p = dense.logits[:, head, i], dense.pattern[:, head, i]
            keys = [j for j in range(1, i) if bool(logits[:, j].isfinite().all())]
            places = [(x + 0.5) / len(keys) for x in range(len(keys))]
            means = [float(logits[:, j].mean()) for j in keys]
            trends.append(float(np.corrcoef(places, means)[0, 1]))
            slopes.append(float(np.polyfit(places, means, 1)[0]))
            for j, place in zip(keys, places, strict=True):
                shares = [float(row[j] / sum(row[key] for key in keys)) for row in p]
                received[int(16 * place)] += sum(shares) / TURNS * len(keys)
                fallen[int(16 * place)] += 1
        scores.append(np.mean(trends))
        rises.append(np.mean(slopes))
        profiles.append([x / max(1, y) for x, y in zip(received, fallen, strict=True)])
    return {
        "causal_mask_bias": scores,
        "causal_mask_bias_rise": rises,
        "causal_mask_bias_profile": profiles,
    }
