import math

import torch

from definitions import Case
from definitions.marked import MARKED
from headscope.attention import Attention

CHUNK, BUDGET, N, NEEDLE = 6, 2, 38, range(4, 19)
PARAMETERS = {"prompts": MARKED, "chunk": CHUNK, "budget": BUDGET}


def define(case: Case) -> dict[str, list[float]]:
    a, chunks = case.attention, [range(c, min(c + CHUNK, N)) for c in range(0, N, CHUNK)]
    plain_q, local_k = rotations(a)
    found = []
    for head in range(a.n_heads):
        kv = head // a.group
        q, k, v = (x.double().tolist() for x in (a.q[0, head], a.k[0, kv], a.v[0, kv]))
        local, asks = local_k[kv].double().tolist(), plain_q[head, N - 1].double().tolist()
        affinity = []
        for chunk in chunks:
            outputs = [average([weight(a, q[i], k[j]) for j in chunk], [v[j] for j in chunk])
                       for i in chunk]  # fmt: skip
            mean = [sum(column) / len(chunk) for column in zip(*outputs, strict=True)]
            stands = average([weight(a, mean, local[j]) for j in chunk], [local[j] for j in chunk])
            affinity.append(dot(asks, stands))
        # Chunk 0 is always read, and competes because the needle begins in it; 5 and 6 do not.
        ranked = sorted(range(5), key=lambda c, by=affinity: -by[c])
        found.append(sum(j // CHUNK in ranked[:BUDGET] for j in NEEDLE) / len(NEEDLE))
    return {"longheads": found}


def rotations(a: Attention) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries without their rotation, and keys rotated by their places within chunks."""
    if a.rope is None:
        return a.q[0], a.k[0]
    places = torch.arange(a.n_keys)[None] % CHUNK
    keys = a.rope.rotate(a.rope.unrotate(a.k, a.key_positions), places)
    return a.rope.unrotate(a.q, a.query_positions)[0], keys[0]


def dot(x: list[float], y: list[float]) -> float:
    return sum(s * t for s, t in zip(x, y, strict=True))


def weight(a: Attention, query: list[float], key: list[float]) -> float:
    logit = a.scale * dot(query, key)
    return math.exp(logit if a.softcap is None else a.softcap * math.tanh(logit / a.softcap))


def average(weights: list[float], rows: list[list[float]]) -> list[float]:
    total = sum(weights)
    return [dot(weights, list(column)) / total for column in zip(*rows, strict=True)]
