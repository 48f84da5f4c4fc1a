import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.task_kv import TaskKV
from headscope.model import HeadModel
from headscope.stack import Attend

PROMPT_DECIDES = True  # which KV heads keep everything


def methods(model: HeadModel) -> list[TaskKV]:
    return [TaskKV(0.5, 1, 3, 2, 4, 6), TaskKV(0.0, 2, 2, 3, 6), TaskKV(0.4, 0, 4, 0, 5, 4)]


def by_hand(method: TaskKV):
    """Distances and ranks head by head after the prompt; -inf on what is gone from then on."""
    gone: dict[int, torch.Tensor] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        if attention.run.step == 0:
            dense = oracle.dense(attention)
            gone[attention.layer] = evicted(method, attention, dense.pattern)
        else:
            before = gone[attention.layer]
            new = torch.zeros(*before.shape[:2], attention.n_keys - before.shape[2])
            lost = torch.cat((before, new.bool()), 2).repeat_interleave(attention.group, 1)
            hidden = torch.zeros(lost.shape, dtype=torch.float64).masked_fill(lost, -torch.inf)
            dense = oracle.dense(attention, hidden[:, :, None])
        return Attended(dense.z.to(attention.v.dtype), attention)

    return attend


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
