from functools import partial

import torch

from altered.evicting import hidden_from_then_on
from headscope.attention import Attention
from headscope.interventions.task_kv import TaskKV
from headscope.model import HeadModel

PROMPT_DECIDES = True  # which KV heads keep everything


def methods(model: HeadModel) -> list[TaskKV]:
    return [TaskKV(0.5, 1, 3, 2, 4, 6), TaskKV(0.0, 2, 2, 3, 6), TaskKV(0.4, 0, 4, 0, 5, 4)]


def by_hand(method: TaskKV):
    """Distances and ranks head by head after the prompt; -inf on what is gone from then on."""
    return hidden_from_then_on(partial(evicted, method))


def evicted(method: TaskKV, attention: Attention, pattern: torch.Tensor) -> torch.Tensor:
    n, group = attention.n_keys, attention.group
    gone = torch.zeros(len(pattern), attention.n_kv_heads, n, dtype=torch.bool)
    for b in range(len(pattern)):
        real = [j for j in range(n) if attention.key_positions[b, j] >= 0]
        first = real[0]
        rows = [j for j in real if j >= n - method.window]
        read = []
        for h in range(attention.n_heads):
            mean = {j: float(pattern[b, h, rows, j].mean()) for j in real}
            top = sorted(real, key=lambda j: -mean[j])[: method.top]
            read.append(sum(mean[j] * attention.v[b, h // group, j].double() for j in top))
        centre = sum(read) / len(read)
        far = [float((x - centre).norm()) for x in read]
        by_kv = [max(far[k * group : (k + 1) * group]) for k in range(attention.n_kv_heads)]
        ranked = sorted(range(len(by_kv)), key=lambda k: -by_kv[k])
        for k in ranked[int(method.share * len(by_kv) + 0.5) :]:
            between = [j for j in real if j - first >= method.sink and j < n - method.recent]
            votes = {
                j: float(pattern[b, k * group : (k + 1) * group][:, rows, j].sum()) for j in between
            }
            lost = sorted(between, key=lambda j: -votes[j])[method.middle :]
            gone[b, k, lost] = True
    return gone
