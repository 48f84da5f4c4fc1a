import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.lychee_decode import LycheeDecode
from headscope.model import HeadModel
from headscope.stack import Attend

HEADS = ((1, 0), (1, 4), (2, 3))
NO_HEADS = {"heads": tuple((layer, head) for layer in range(3) for head in range(6))}


def methods(model: HeadModel) -> list[LycheeDecode]:
    return [
        LycheeDecode(HEADS, k=4),
        LycheeDecode((), k=5),
        LycheeDecode(["L1H1", "L1H2", "L1H3"], k=3, sink=1, recent=2),
    ]


def by_hand(method: LycheeDecode):
    """Row by row in float64; a head's keys are those that the nearest chooser of its index left."""
    left: dict[tuple[int, int, int, int], list[int]] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        dense = oracle.dense(attention)
        z, layer = dense.z.clone(), attention.layer
        for b, h, t in torch.cartesian_prod(*map(torch.arange, z.shape[:3])).tolist():
            query, keys = int(attention.query_positions[b, t]), attention.key_positions[b].tolist()
            if query < int(attention.run.prompt_length[b]):
                continue
            seen = [slot for slot, key in enumerate(keys) if 0 <= key <= query]
            logits = dense.logits[b, h, t]
            if layer == 0 or (layer, h) in method.heads:
                best = sorted(seen, key=lambda slot: -float(logits[slot]))[: method.k]
                left[layer, b, h, query] = [keys[slot] for slot in best]
                continue
            source = max(below for below in range(layer) if (below, b, h, query) in left)
            wanted = {*left[source, b, h, query], *range(method.sink)}
            wanted |= set(range(query - method.recent + 1, query + 1))
            read = [slot for slot in seen if keys[slot] in wanted]
            z[b, h, t] = (
                logits[read].softmax(-1) @ attention.v[b, h // attention.group, read].double()
            )
        return Attended(z.to(attention.v.dtype), attention)

    return attend
