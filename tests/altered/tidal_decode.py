import oracle
import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.tidal_decode import TidalDecode
from headscope.model import HeadModel
from headscope.stack import Attend


def methods(model: HeadModel) -> list[TidalDecode]:
    return [
        TidalDecode(4, 0, ()),
        TidalDecode(5, 0, [1]),
        TidalDecode(2, 1, (), sink=1, recent=3),
        TidalDecode(1, 0, (1,), recent=2),
    ]


def by_hand(method: TidalDecode):
    """Row by row in float64; each head's keys are a set of positions that later layers look up."""
    chosen: dict[tuple[int, int, int], set[int]] = {}

    def attend(attention: Attention, _: Attend) -> Attended:
        dense = oracle.dense(attention)
        z, layer = dense.z.clone(), attention.layer
        for b, h, t in torch.cartesian_prod(*map(torch.arange, z.shape[:3])).tolist():
            query, keys = int(attention.query_positions[b, t]), attention.key_positions[b].tolist()
            if query < int(attention.run.prompt_length[b]) or layer < method.chooser:
                continue
            seen = [slot for slot, key in enumerate(keys) if 0 <= key <= query]
            logits = dense.logits[b, h, t]
            if layer == method.chooser or layer in method.corrections:
                best = sorted(seen, key=lambda slot: -float(logits[slot]))[: method.k]
                chosen[b, h, query] = {keys[slot] for slot in best}
                continue
            read = [
                slot for slot in seen
                if keys[slot] in chosen[b, h, query]
                or keys[slot] < method.sink
                or keys[slot] > query - method.recent
            ]  # fmt: skip
            z[b, h, t] = (
                logits[read].softmax(-1) @ attention.v[b, h // attention.group, read].double()
            )
        return Attended(z.to(attention.v.dtype), attention)

    return attend
