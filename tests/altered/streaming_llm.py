import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.interventions.streaming_llm import StreamingLLM
from headscope.model import HeadModel
from headscope.rope import Rope
from headscope.stack import Attend


def methods(model: HeadModel) -> list[StreamingLLM]:
    return [
        StreamingLLM(2, 6),
        StreamingLLM(0, 5),
        StreamingLLM(1, 3),
        StreamingLLM(3, 4, rotate=False),
    ]


def by_hand(method: StreamingLLM):
    """A small cache per row, its keys encoded anew by their place in it."""

    def attend(attention: Attention, _: Attend) -> Attended:
        rope = attention.rope
        q = rope.unrotate(attention.q.double(), attention.query_positions)
        k = rope.unrotate(attention.k.double(), attention.key_positions)
        z = torch.zeros(*q.shape[:3], attention.v.shape[3], dtype=torch.float64)
        for b, queries in enumerate(attention.query_positions.tolist()):
            keys = attention.key_positions[b].tolist()
            for t, query in enumerate(queries):
                held = [
                    slot
                    for slot, key in enumerate(keys)
                    if 0 <= key <= query and (key < method.sink or query - key < method.window)
                ]
                if query < 0:
                    continue
                places = list(range(len(held))) if method.rotate else [keys[i] for i in held]
                key = encoded(rope, k[[b]][:, :, held], places)
                row = encoded(rope, q[[b]][:, :, [t]], places[-1:])
                key, value = (
                    x.repeat_interleave(attention.group, 1)
                    for x in (key, attention.v[[b]][:, :, held].double())
                )
                weights = (row @ key.transpose(-1, -2) * attention.scale).softmax(-1)
                z[b, :, t] = (weights @ value)[0, :, 0]
        return Attended(z.to(attention.v.dtype), attention)

    return attend


def encoded(rope: Rope, x: torch.Tensor, places: list[int]) -> torch.Tensor:
    return Rope(rope.tables, rope.pairing).rotate(x, torch.tensor([places]))
