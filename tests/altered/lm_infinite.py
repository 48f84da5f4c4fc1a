import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.lm_infinite import LmInfinite
from headscope.model import HeadModel
from headscope.rope import Rope
from headscope.stack import Attend


def methods(model: HeadModel) -> list[LmInfinite]:
    return [LmInfinite(3, 5), LmInfinite(2, 4, 9), LmInfinite(0, 6), LmInfinite(6, 3, 8)]


def by_hand(method: LmInfinite):
    """Pair by pair: the query at its distance in front of a key that stands at 0."""
    limit = method.limit or method.window

    def attend(attention: Attention, _: Attend) -> Attended:
        rope = attention.rope
        q = rope.unrotate(attention.q.double(), attention.query_positions)
        k = rope.unrotate(attention.k.double(), attention.key_positions)
        plain = Rope(rope.tables, rope.pairing)
        z = torch.zeros(*q.shape[:3], attention.v.shape[3], dtype=torch.float64)
        for b, queries in enumerate(attention.query_positions.tolist()):
            keys = attention.key_positions[b].tolist()
            for t, query in enumerate(queries):
                held = [
                    slot
                    for slot, key in enumerate(keys)
                    if 0 <= key <= query and (key < method.sink or query - key < method.window)
                ]
                if not held:
                    continue
                apart = torch.tensor([[min(query - keys[slot], limit) for slot in held]])
                row = q[[b]][:, :, [t]].expand(-1, -1, len(held), -1)
                turned = plain.rotate(row, apart)
                key = plain.rotate(k[[b]][:, :, held], torch.zeros_like(apart))
                key, value = (
                    x.repeat_interleave(attention.group, 1)
                    for x in (key, attention.v[[b]][:, :, held].double())
                )
                weights = ((turned * key).sum(-1) * attention.scale).softmax(-1)
                z[b, :, t] = (weights[..., None] * value).sum(2)[0]
        return Attended(z.to(attention.v.dtype), attention)

    return attend
