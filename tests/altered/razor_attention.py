import math

import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.razor_attention import RazorAttention
from headscope.model import HeadModel
from headscope.stack import Attend

HEADS = ((0, 1), (1, 4), (2, 0), (2, 5))
NO_HEADS = {"heads": tuple((layer, head) for layer in range(3) for head in range(6))}


def methods(model: HeadModel) -> list[RazorAttention]:
    return [
        RazorAttention(HEADS, 2, 3, 5),
        RazorAttention((), 1, 2, 3),
        RazorAttention(HEADS, 0, 6, 20),
        RazorAttention(HEADS, 2, 3, 5, compensate=False),
    ]


def by_hand(method: RazorAttention):
    """Row by row in float64: the keys that are kept, and one token for those that are not."""

    def attend(attention: Attention, _: Attend) -> Attended:
        z = torch.zeros(*attention.q.shape[:3], attention.v.shape[3], dtype=torch.float64)
        for b, h, t in torch.cartesian_prod(*map(torch.arange, z.shape[:3])).tolist():
            query, kv = int(attention.query_positions[b, t]), h // attention.group
            if query < 0:
                continue
            keys = attention.key_positions[b].tolist()
            seen = [slot for slot, key in enumerate(keys) if 0 <= key <= query]
            length = max(method.recent, (query + 1) // method.divisor)
            retrieves = any(
                layer == attention.layer and head // attention.group == kv
                for layer, head in method.heads
            )
            gone = [s for s in seen if keys[s] >= method.sink and keys[s] <= query - length]
            if retrieves or query < int(attention.run.prompt_length[b]):
                gone = []
            kept = [s for s in seen if s not in gone]
            k, v = attention.k[b, kv].double(), attention.v[b, kv].double()
            rows, values, more = k[kept], v[kept], torch.zeros(len(kept), dtype=torch.float64)
            if gone and method.compensate:
                rows = torch.cat((rows, k[gone].mean(0, keepdim=True)))
                values = torch.cat((values, v[gone].mean(0, keepdim=True)))
                more = torch.cat((more, torch.tensor([math.log(len(gone))]).double()))
            logits = rows @ attention.q[b, h, t].double() * attention.scale + more
            z[b, h, t] = logits.softmax(0) @ values
        return Attended(z.to(attention.v.dtype), attention)

    return attend
