import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.token_select import TokenSelect
from headscope.model import HeadModel
from headscope.stack import Attend


def methods(model: HeadModel) -> list[TokenSelect]:
    return [
        TokenSelect(4, 1, 3, None),
        TokenSelect(6, 0, 2, 0.1),
        TokenSelect(3, 2, 1, -1.0),
        TokenSelect(12, 2, 6, None),
    ]


def by_hand(method: TokenSelect):
    """Row by row in float64, with a tally of votes by position."""
    selected: dict[tuple[int, int], tuple[list[int], torch.Tensor]] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        dense, layer = oracle.dense(attention), attention.layer
        z = dense.z.clone()
        for b in range(len(z)):
            for t, query in enumerate(attention.query_positions[b].tolist()):
                size = method.sink + method.k + method.recent
                if query < int(attention.run.prompt_length[b]) or query + 1 <= size:
                    continue
                place = attention.key_positions[b].tolist().index
                q = attention.q[b, :, t].double().flatten()
                old = selected.get((layer, b))
                if old is None or method.similarity is None or not alike(q, old[1], method):
                    free = range(method.sink, query - method.recent + 1)
                    logits = dense.logits[b, :, t, [place(key) for key in free]]
                    tally = logits.softmax(-1).sum(0).tolist()
                    best = sorted(range(len(free)), key=lambda j: -tally[j])[: method.k]
                    old = selected[layer, b] = [free[j] for j in best], q
                last = range(query - method.recent + 1, query + 1)
                slots = [place(key) for key in (*range(method.sink), *old[0], *last)]
                for h in range(z.shape[1]):
                    v = attention.v[b, h // attention.group, slots].double()
                    z[b, h, t] = dense.logits[b, h, t, slots].softmax(-1) @ v
        return Attended(z.to(attention.v.dtype), attention)

    return attend


def alike(one: torch.Tensor, other: torch.Tensor, method: TokenSelect) -> bool:
    return float(one @ other / (one.norm() * other.norm())) >= method.similarity
