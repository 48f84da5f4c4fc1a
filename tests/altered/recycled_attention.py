import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.recycled_attention import RecycledAttention
from headscope.model import HeadModel
from headscope.stack import Attend


def methods(model: HeadModel) -> list[RecycledAttention]:
    return [
        RecycledAttention(8, 4, None, 3),
        RecycledAttention(2, 9, None, 1, "sum"),
        RecycledAttention(6, 4, 0.5, 1),
        RecycledAttention(7, 5, -0.2, 5),
    ]


def by_hand(method: RecycledAttention):
    """Row by row in float64; the queue of each KV head is a list, the least looked at in front."""
    queues: dict[tuple[int, int, int], list[int]] = {}
    means: dict[tuple[int, int], torch.Tensor] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        dense, layer, group = oracle.dense(attention), attention.layer, attention.group
        z = dense.z.clone()
        for t in range(attention.n_queries):
            for b in range(len(z)):
                query = int(attention.query_positions[b, t])
                place = attention.key_positions[b].tolist().index
                step = query - int(attention.run.prompt_length[b]) + 1
                mean = attention.q[b, :, t].double().mean(0)
                full = step == 0 or (step > 0 and step % method.stride == 0)
                if step > 0 and full and method.similarity is not None:
                    full = float(cosine(mean, means[layer, b])) < method.similarity
                for kv in range(attention.n_kv_heads):
                    heads = range(kv * group, (kv + 1) * group)
                    if full:
                        means[layer, b] = mean
                        slots = [place(key) for key in range(query + 1)]
                        queues[layer, b, kv] = ranked(method, dense.pattern[b, heads, t][:, slots])
                    elif step > 0:
                        queue = [*queues[layer, b, kv], query]
                        slots = [place(key) for key in queue]
                        v = attention.v[b, kv, slots].double()
                        for h in heads:
                            z[b, h, t] = dense.logits[b, h, t, slots].softmax(-1) @ v
                        queues[layer, b, kv] = queue[-method.k :]
        return Attended(z.to(attention.v.dtype), attention)

    return attend


def cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return one @ other / (one.norm() * other.norm())


def ranked(method: RecycledAttention, weights: torch.Tensor) -> list[int]:
    """The best k positions, the worst of them first."""
    n, reach = weights.shape[1], method.kernel // 2
    pooled = [
        [float(row[max(0, j - reach) : j + reach + 1].max()) for j in range(n)] for row in weights
    ]
    join = max if method.group == "max" else sum
    score = [join(row[j] for row in pooled) for j in range(n)]
    return sorted(range(n), key=lambda j: -score[j])[: method.k][::-1]
